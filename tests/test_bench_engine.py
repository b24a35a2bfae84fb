"""`chartmill bench engine`: models whose outputs are as long as their sources ask for, in every engine, and what is made of the times."""

from __future__ import annotations

import io
import json
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipeline.bench_engine import PEERS, Told, _disagreements, _figures
from pipeline.bench_engine_table import print_engines
from pipeline.bench_peers import CTranslate2, Generate, Ours, Timed, Work, convert, lacks_settings
from pipeline.bench_roofline import Layout, Traffic, floor_seconds, probe
from pipeline.bench_shapes import END, SHAPES, Sample, codes, make_model, make_samples
from pipeline.bench_turns import Turn
from pipeline.cli import main
from schemas.errors import ConfigurationError
from tests.tiny_models import mostly_slow
from transforms.engine import DecodeSettings, EngineSettings, Request, load_engine

COUNT = 12
TINY = ("tiny", "tiny-t5")
SECRET = "Quill-Ostrander"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_model(SHAPES[name], tmp_path_factory.mktemp(name)) for name in TINY}


def work_on(folder: Path, name: str, beams: int = 1) -> tuple[Work, list[Sample]]:
    shape, samples = SHAPES[name], make_samples(SHAPES[name], COUNT, 1)
    decode = DecodeSettings(num_beams=beams, max_new_tokens=shape.longest_output + 1)
    return Work(folder, tuple(sample.text for sample in samples), decode, shape.longest_source, 1), samples


@pytest.mark.parametrize("name", mostly_slow(TINY, ["tiny"]))
@pytest.mark.parametrize("beams", [1, 3])
def test_every_engine_meets_the_end_where_the_source_tells(name: str, beams: int, folders: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    work, samples = work_on(folders[name], name, beams)
    told = [sample.output_tokens for sample in samples]
    assert len(set(told)) > 3
    for dtype in ("float32", "bfloat16"):
        assert Generate(work, batch=4, dtypes=(dtype,), by_length=dtype == "float32").write(work.texts) == told
        assert Ours(work, dtype).write(work.texts) == told
    assert CTranslate2(work, convert(work.folder, tmp_path / "converted")).write(work.texts) == told


def test_the_fastest_number_format_of_this_machine_meets_it_too(folders: dict[str, Path]) -> None:
    work, samples = work_on(folders["tiny"], "tiny")
    assert Ours(work, "auto").write(work.texts) == [sample.output_tokens for sample in samples]


def test_outputs_end_by_themselves_and_not_at_a_limit(folders: dict[str, Path]) -> None:
    [sample] = make_samples(SHAPES["tiny"], 1)
    engine = load_engine(EngineSettings("torch", str(folders["tiny"]), dtype="float32", device="cpu", threads=1))
    [completion] = engine.generate([Request(sample.text, DecodeSettings(max_new_tokens=80))])
    assert completion.finish == "stop" and completion.token_ids[-1] == END
    # A text of words that the model does not know gets the mean length.
    [unknown] = engine.generate([Request("Walks with a stick since spring.", DecodeSettings(max_new_tokens=80))])
    assert len(unknown.token_ids) == SHAPES["tiny"].output[0]


@pytest.mark.parametrize("name", SHAPES)
def test_samples_have_the_lengths_of_their_shape(name: str) -> None:
    shape = SHAPES[name]
    samples = make_samples(shape, 200, 5)
    assert samples == make_samples(shape, 200, 5) != make_samples(shape, 200, 6)
    framing = 2 if shape.family == "bart" else 1
    assert all(len(sample.text.split()) + framing == sample.source_tokens <= shape.longest_source for sample in samples)
    assert max(sample.output_tokens for sample in samples) <= shape.longest_output
    ninth = sorted(sample.output_tokens for sample in samples)[180]
    assert mean(sample.output_tokens for sample in samples) == pytest.approx(shape.output[0], rel=0.05)
    assert ninth == pytest.approx(shape.output[1], rel=0.05)
    # Cutting at the longest source takes some off.
    assert mean(sample.source_tokens for sample in samples) == pytest.approx(shape.source[0], rel=0.15)


@pytest.mark.parametrize("name", SHAPES)
def test_codes_of_different_steps_are_far_from_alike(name: str) -> None:
    table = codes(SHAPES[name])
    likeness = table @ table.T / (table.shape[1] / 2)
    assert likeness.diagonal() == pytest.approx(1.0)
    for step, row in enumerate(likeness):
        assert max(value for other, value in enumerate(row) if other != step) < 0.75


def test_the_floor_is_arithmetic_and_traffic() -> None:
    layout = Layout.of({"model_type": "t5", "d_model": 8, "num_heads": 2, "d_kv": 3, "num_layers": 1, "d_ff": 16, "vocab_size": 32})
    assert layout == Layout(8, 6, (1, 16), (1, 16), 32)
    # Self-attention's four products, feed-forward's two, scores and sums over 5 x 5 pairs, and the decoder's keys and values.
    assert layout.encoder_flops(5) == 2 * 5 * (4 * 48 + 2 * 128) + 4 * 25 * 6 + 2 * 5 * 2 * 48
    assert layout.decoder_weights() == 6 * 48 + 2 * 128 + 256
    floor = floor_seconds(
        layout, Traffic((5,), (3,), {"row_steps": 3, "cross_positions": 15, "steps": 3}), "int8", {"flops": 1e3, "bytes": 1e6}
    )
    kept = 2 * 6 * (15 + 6)
    assert floor == {
        "encode": layout.encoder_flops(5) / 1e3,
        "decode": (2 * 3 * 800 + 2 * kept) / 1e3,
        "read": (3 * 800 + 2 * kept) / 1e6,
    }
    assert Layout.of({"model_type": "led"}) is None


def test_layouts_count_the_weights_of_the_models(folders: dict[str, Path]) -> None:
    from safetensors import safe_open

    for name in TINY:
        layout = Layout.of(json.loads((folders[name] / "config.json").read_text()))
        assert layout is not None
        with safe_open(folders[name] / "model.safetensors", "np") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - not a mapping
        linear = [key for key, shape in shapes.items() if "decoder" in key and len(shape) == 2 and "embed" not in key and "bias" not in key]
        crossed = [
            key
            for key in linear
            if any(part in key for part in ("encoder_attn.k", "encoder_attn.v", "EncDecAttention.k", "EncDecAttention.v"))
        ]
        numbers = sum(shapes[key][0] * shapes[key][1] for key in linear if key not in crossed)
        assert layout.decoder_weights() == numbers + layout.width * layout.vocabulary


def test_the_machine_has_speeds() -> None:
    assert all(value > 1e6 for value in probe("float32", 1).values())


def turn(seconds: float, lengths: tuple[int, ...], **facts: Any) -> Turn:
    common: dict[str, Any] = {"lengths": list(lengths), "settings": {"dtype": "int8"}, "peak_mb": 7}
    return Turn(seconds, 1.5, len(lengths), sum(lengths), facts=common | facts)


def test_medians_and_spread_are_told() -> None:
    figures = _figures([turn(s, (4, 6)) for s in (1.0, 4.0, 2.0)], None, Told((9, 9), (4, 5)))
    assert figures["notes_per_second"] == 1.0 and figures["spread"] == [0.5, 2.0]
    assert figures["output_tokens_per_second"] == 5.0 and figures["lengths_as_told"] == 0.5 and figures["peak_mb"] == 7


def test_engines_that_wrote_something_else_are_named() -> None:
    written = {"ours": 1000, "generate_best": 1009, "ctranslate2_best": 985}
    [warning] = _disagreements({name: {"output_tokens": tokens} for name, tokens in written.items()})
    assert warning.startswith("ctranslate2_best wrote 985 tokens")


def test_a_peer_tunes_in_the_turn_that_does_not_count(folders: dict[str, Path]) -> None:
    work, samples = work_on(folders["tiny"], "tiny")
    timed = Timed(Generate, work, batch=16, dtypes=("float32", "bfloat16"), by_length=True)
    assert timed.turn().notes == 0
    done = timed.turn()
    assert done.output_tokens == sum(sample.output_tokens for sample in samples)
    assert set(done.facts["settings"]["tried"]) == {"float32", "bfloat16"} and done.facts["peak_mb"] > 50


def test_settings_that_ctranslate2_lacks_are_known() -> None:
    assert not lacks_settings(DecodeSettings(num_beams=4, no_repeat_ngram_size=3))
    assert lacks_settings(DecodeSettings(suppress_tokens=(3,)))


@pytest.mark.parametrize("arguments", [["--peers", "vllm"], ["--shape", "huge"], ["--model", "default"], ["--dtype", "float8"]])
def test_unknown_choices_are_told(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "engine", "--requests", "1", *arguments]) == 2
    assert capfd.readouterr().err


# Each contender is a process that imports torch: seconds, on a busy machine many.
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_measures_all_of_them(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ctranslate2")
    arguments = ["--requests", "6", "--repeats", "2", "--threads", "1", "--peers", ",".join(PEERS), "--json"]
    assert main(["bench", "engine", "--shape", "tiny", *arguments]) == 0
    said = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert said["exit_code"] == 0 and said["shape"] == "tiny" and said["requests"] == 6 and said["beams"] == 1
    assert set(said["engines"]) == {"ours", *PEERS} and not said["absent"] and not said["warnings"]
    assert all(engine["lengths_as_told"] == 1 and len(engine["seconds"]) == 2 for engine in said["engines"].values())
    assert set(said["ratios"]) == set(PEERS) and all(ratio > 0 for ratio in said["ratios"].values())
    assert said["engines"]["ours"]["roofline"]["share"] > 0 and said["engines"]["ctranslate2_best"]["settings"]["batch"] in (8, 16, 32)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_several_shapes_are_told_one_by_one(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--requests", "6", "--repeats", "1", "--threads", "1", "--peers", "", "--float32", "--draft", "--json"]
    assert main(["bench", "engine", "--shape", "tiny", "--shape", "tiny-t5", *arguments]) == 0
    out = capfd.readouterr().out
    said = json.loads(out.splitlines()[-1])
    assert set(said["shapes"]) == set(TINY) and said["ratios"] == said["shapes"]["tiny"]["ratios"]
    assert all(set(found["engines"]) == {"ours", "ours_float32", "ours_drafting"} for found in said["shapes"].values())
    assert set(said["ratios"].values()) == {None} and "tiny-t5: 6 requests" in out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_real_texts_through_a_real_model_are_not_shown(folders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    notes = tmp_path / "notes.parquet"
    pq.write_table(pa.table({"body": [f"{SECRET} walks with a stick.", "", None, f"{SECRET} sleeps six hours."]}), notes)
    arguments = ["--model", str(folders["tiny"]), "--input", str(notes), "--text-column", "body", "--peers", "generate_fp32_b8"]
    assert main(["bench", "engine", *arguments, "--repeats", "1", "--threads", "1", "--json"]) == 0
    out, err = capfd.readouterr()
    said = json.loads(out.splitlines()[-1])
    assert said["requests"] == 2 and said["ratios"]["generate_fp32_b8"] > 0 and said["ratios"]["ctranslate2_best"] is None
    assert SECRET not in out + err


def test_the_table_fits_a_terminal() -> None:
    engine = _figures([turn(2.0, (40, 60))], None, Told()) | {"times_generate_fp32_b8": 3.25}
    inside = {"shares": {"encode": 0.3, "decode": 0.7}, "padding_share": 0.0, "idle_share": 0.01}
    engines = {"ours": engine | inside, "generate_fp32_b8": engine, "ctranslate2_best": None}
    figures = {
        "shape": "t5-base", "requests": 2, "beams": 1, "threads": 2, "repeats": 1, "engines": engines, "ratios": {"generate_fp32_b8": 3.25},
        "absent": {"ctranslate2_best": "not installed"}, "warnings": [], "machine": {"cpu": "c", "features": ["avx2"]},
    }  # fmt: skip
    page = io.StringIO()
    print_engines(figures, Console(file=page, width=80))
    lines = page.getvalue().splitlines()
    assert "…" not in page.getvalue()
    assert any(line.split() == ["CTranslate2,", "best", "absent"] for line in lines)


def test_options_name_the_peers() -> None:
    from pipeline.bench_engine import Options

    with pytest.raises(ConfigurationError, match="one_window"):
        Options(peers=("unknown",))
