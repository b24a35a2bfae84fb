"""A Beam pipeline of rows as Beam's documentation teaches inference without RunInference; only for comparison, see bench_job.

It is right on notes that fit the model and runs anywhere. It validates nothing, proves nothing, and writes what `generate()` gives.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics, MetricsFilter

from pipeline.runners import LOCAL_RUNNER, runner_failures
from transforms.engine import DecodeSettings

_SCHEMA = pa.schema([("note_id", pa.string()), ("summary", pa.string())])
_MICROSECOND = 1e-6


class _Summarize(beam.DoFn):  # type: ignore[misc]
    """Batches of rows to rows with a summary. The model is loaded once per instance, in float32 as it comes."""

    def __init__(self, folder: str, decode: DecodeSettings) -> None:
        self._folder = folder
        self._decode = decode
        self._tokens = Metrics.counter("rows", "tokens")
        self._loading = Metrics.counter("rows", "loading")
        self._load_us = 0

    def setup(self) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, logging

        logging.disable_progress_bar()
        started = time.perf_counter()
        self._tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
        self._model = AutoModelForSeq2SeqLM.from_pretrained(self._folder, dtype=torch.float32, use_safetensors=True, local_files_only=True)
        self._model.eval()
        self._load_us = round((time.perf_counter() - started) / _MICROSECOND)

    def process(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
        # Counted here: metrics have no place to go during setup.
        self._loading.inc(self._load_us)
        self._load_us = 0
        inputs = self._tokenizer([row["text"] for row in rows], padding=True, truncation=True, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        output = self._model.generate(**inputs, **json.loads(self._decode.as_json()))
        self._tokens.inc(int((output[:, 1:] != self._tokenizer.pad_token_id).sum()))
        summaries = self._tokenizer.batch_decode(output, skip_special_tokens=True)
        for row, summary in zip(rows, summaries, strict=True):
            yield {"note_id": row["note_id"], "summary": summary}


def run_rows(source: Path, output: Path, model: str, decode: DecodeSettings, batch: int) -> tuple[int, int, float]:
    """Summarize the file's rows (`note_id`, `text`) into the folder, `batch` at most at once; rows, tokens written, seconds of loading."""
    pipeline = beam.Pipeline(runner=LOCAL_RUNNER)
    (
        pipeline
        | beam.io.ReadFromParquet(str(source), columns=["note_id", "text"])
        | beam.BatchElements(min_batch_size=1, max_batch_size=batch)
        | beam.ParDo(_Summarize(model, decode))
        | beam.io.WriteToParquet(str(output / "summaries"), _SCHEMA, file_name_suffix=".parquet")
    )
    with runner_failures():
        result = pipeline.run()
        result.wait_until_finish()
    counted = {c.key.metric.name: c.committed for c in result.metrics().query(MetricsFilter().with_namespace("rows"))["counters"]}
    rows = sum(_rows(path) for path in output.glob("summaries*.parquet"))
    return rows, counted.get("tokens", 0), counted.get("loading", 0) * _MICROSECOND


def _rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.ParquetFile(path).metadata.num_rows)
