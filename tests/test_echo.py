from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from tests.tiny_models import make_model
from transforms.engine import DecodeSettings, EngineSettings, Request, load_engine


def test_echo_gives_whole_leading_sentences() -> None:
    engine = load_engine(EngineSettings(backend="echo"))
    text = "One two three.\n\nFour   five. Six seven eight nine."
    [completion] = engine.generate([Request(text, DecodeSettings(max_new_tokens=7))])
    assert completion.text == "One two three. Four five."
    assert completion.spans == ((0, text.index(" Six")),)
    assert (completion.finish, completion.source_tokens, len(completion.token_ids)) == ("stop", 9, 5)
    [cut] = engine.generate([Request(text, DecodeSettings(max_new_tokens=2))])
    assert (cut.text, cut.finish) == ("One two", "length")


def test_echo_waits_as_long_as_it_is_told() -> None:
    engine = load_engine(EngineSettings(backend="echo", delay_ms=5))
    started = time.perf_counter()
    engine.generate([Request("text")] * 10)
    assert time.perf_counter() - started >= 0.05


def test_echo_and_planning_import_no_torch(tmp_path: Path) -> None:
    """What the command line and the planner need of the engine, in a fresh interpreter."""
    program = f"""
        import sys
        from pathlib import Path
        from transforms.engine import *
        from transforms.models import resolve_model

        [completion] = load_engine(EngineSettings(backend="echo")).generate([Request("Three short words.")])
        assert completion.text == "Three short words."
        assert resolve_dtype("auto", resolve_device("cpu")) in DTYPES[1:]
        folder = Path({str(make_model("bart", tmp_path))!r})
        assert decode_settings(folder, {{"num_beams": 2}}).num_beams == 2
        assert len(resolve_model(str(folder)).sha256) == 64
        loaded = {{"torch", "transformers", "apache_beam", "boto3", "tokenizers"}} & set(sys.modules)
        assert not loaded, loaded
    """
    root = Path(__file__).parents[1]
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
