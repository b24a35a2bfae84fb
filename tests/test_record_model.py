"""Records written by a model: windows, merging with the rules, what is counted, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas.commit import Shard
from schemas.errors import ConfigurationError
from schemas.note import BATCH_SCHEMA
from schemas.rejection import Reason, Stage
from tests.conftest import note_text
from tests.records import leaves
from tests.tiny_models import make_model
from tests.tiny_record_models import FORMAT, make_record_model
from transforms.batch import NoteBatch
from transforms.engine import DEADLINE, Completion, Constraint, Engine, EngineSettings, Request
from transforms.engine.constraint import Value
from transforms.models import resolve_model
from transforms.record import RecordSettings, page_context, parse_record, read_record, record_batch
from transforms.record_format import RecordFormat
from transforms.record_lines import RECORD_GRAMMAR, record_of
from transforms.record_merge import merge_records
from transforms.record_model import RecordTask, RecordWriter, WrittenNote, count_written, write_notes
from transforms.sections import read_page
from transforms.segment import segment_batch
from transforms.selection import SelectionFormat, save_selection_format
from transforms.sentences import split_sentences
from transforms.shared_engine import load_model

CPU = EngineSettings(device="cpu", dtype="float32", threads=1)
NOTES = tuple(note_text(number, sentences) for number, sentences in ((1, 2), (2, 12), (3, 1), (4, 4), (5, 7)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_record_model(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def writer(folder: Path) -> RecordWriter:
    settings = RecordSettings(reader="model", task=RecordTask(resolve_model(str(folder))))
    assert settings.task is not None
    return settings.writer(load_model(settings.task.model, CPU))


def batch_of(*texts: str) -> NoteBatch:
    rows = [{"note_id": str(i), "text": text, "source_file": 0, "source_row": i} for i, text in enumerate(texts)]
    return segment_batch(NoteBatch(Shard("s", "s", ()), pa.Table.from_pylist(rows, schema=BATCH_SCHEMA)))


def written_of(writer: RecordWriter, *texts: str) -> list[WrittenNote]:
    return write_notes(texts, [split_sentences(text) for text in texts], writer)


def test_every_value_is_the_notes_own_words_at_their_offsets(writer: RecordWriter) -> None:
    done = record_batch(batch_of(*NOTES), writer=writer)
    found = 0
    for text, record in zip(NOTES, done.column("record"), strict=True):
        for leaf in leaves(record):
            assert text[leaf["start"] : leaf["end"]] == leaf["text"] == leaf["text"].strip()
            found += 1
        assert {reader for entity in _entities(record) for reader in entity["readers"]} <= {"model"}
    assert found > len(NOTES)
    assert done.stats.records["notes"] == len(NOTES)
    assert done.stats.records["windows"] > len(NOTES)


def _entities(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for value in record.values():
        if isinstance(value, list):
            yield from value


def test_batched_equals_one_by_one(writer: RecordWriter) -> None:
    together = record_batch(batch_of(*NOTES), writer=writer).column("record")
    assert together == [record_batch(batch_of(text), writer=writer).column("record")[0] for text in NOTES]


def test_a_shard_is_one_call_of_the_engine(writer: RecordWriter) -> None:
    counting = _Counting(writer.engine)
    record_batch(batch_of(*NOTES), writer=replace(writer, engine=counting))
    [requests] = counting.calls
    assert len(requests) > len(NOTES)
    assert all(request.text.startswith(FORMAT.prefix) and request.constraint is not None for request in requests)


class _Counting:
    """An engine that remembers what it was asked, and can be told to fail on some requests."""

    def __init__(self, engine: Engine, failing: Sequence[int] = ()) -> None:
        self._engine, self._failing = engine, failing
        self.calls: list[Sequence[Request]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.calls.append(requests)
        done = self._engine.generate(requests)
        return [Completion.failed(DEADLINE, "DeadlineError") if i in self._failing else one for i, one in enumerate(done)]


def test_beside_the_rules_a_line_has_to_be_more_likely_than_not(folder: Path) -> None:
    task = RecordTask(resolve_model(str(folder)))
    assert task.least_probability() == 0.0
    beside = replace(task, with_rules=True)
    assert beside.least_probability() == 0.5
    assert replace(beside, min_probability=0.2).least_probability() == 0.2
    beams = replace(beside, decode={"num_beams": 2})
    assert beams.least_probability() == 0.0
    with pytest.raises(ConfigurationError, match=r"0\.2 needs the probabilities of lines.*num_beams=1"):
        replace(beams, min_probability=0.2).least_probability()


def test_unlikely_lines_are_left_out_and_counted(writer: RecordWriter) -> None:
    """The more is asked of a line the fewer there are; what stays are lines of the record without a bound."""
    every, *bounded = (replace(writer, task=replace(writer.task, min_probability=least)) for least in (0.0, 1e-6, 1e-3, 0.1))
    [whole] = written_of(every, NOTES[1])
    page = read_page(NOTES[1])
    values = list(leaves(merge_records(list(whole.records(page, page_context(page))))))
    counts = [whole.lines()]
    for one in bounded:
        [note] = written_of(one, NOTES[1])
        assert all(leaf in values for leaf in leaves(merge_records(list(note.records(page, page_context(page))))))
        counts.append(note.lines())
        stats = count_written([note])
        assert (stats["lines"], stats["lines"] - stats["unlikely"]) == counts[-1]
    assert len({written for written, _ in counts}) == 1
    kept = [likely for _, likely in counts]
    assert kept == sorted(kept, reverse=True) and kept[0] == counts[0][0] > kept[-1]


def test_no_notes_ask_nothing(writer: RecordWriter) -> None:
    counting = _Counting(writer.engine)
    done = record_batch(batch_of(), writer=replace(writer, engine=counting))
    assert counting.calls == [] and done.column("record") == []


def test_a_note_within_the_limit_is_one_window(writer: RecordWriter) -> None:
    short, long = written_of(writer, NOTES[2], NOTES[1])
    assert (len(short.completions), short.offsets) == (1, (-len(FORMAT.prefix),))
    assert len(long.completions) > 2
    assert not long.dropped


def test_windows_are_of_whole_sentences_and_cover_the_note(writer: RecordWriter) -> None:
    text = NOTES[1]
    counting = _Counting(writer.engine)
    [note] = write_notes([text], [split_sentences(text)], replace(writer, engine=counting))
    bounds = split_sentences(text)
    starts, ends = {start for start, _ in bounds}, {end for _, end in bounds}
    covered = 0
    for offset, request in zip(note.offsets, counting.calls[0], strict=True):
        window = request.text.removeprefix(FORMAT.prefix)
        start = offset + len(FORMAT.prefix)
        end = start + len(window)
        assert text[start:end] == window
        assert end - len(window.lstrip()) in starts and start + len(window.rstrip()) in ends
        assert not text[covered:start].strip()
        covered = end
    assert not text[covered:].strip()


def test_a_note_that_fits_is_read_as_by_the_engine_alone(writer: RecordWriter) -> None:
    text = NOTES[2]
    constraint = Constraint(RECORD_GRAMMAR, start=len(FORMAT.prefix))
    [alone] = writer.engine.generate([Request(FORMAT.prefix + text, writer.task.decode_settings(), constraint)])
    [note] = written_of(writer, text)
    assert note.completions[0].token_ids == alone.token_ids
    [record] = note.records(read_page(text), page_context(read_page(text)))
    assert record == record_of(alone.values, -len(FORMAT.prefix), read_page(text), page_context(read_page(text)))


def test_both_readers_are_merged_and_named() -> None:
    text = "Problems:\n- gout\n- asthma\n"
    heard = WrittenNote((0,), (Completion("", values=_problem(text, "asthma")),))
    joined = read_record(text, None, written=heard, with_rules=True)
    readers = {problem["name"]["text"]: problem["readers"] for problem in joined["problems"]}
    assert readers == {"gout": ["rules"], "asthma": ["rules", "model"]}
    alone = read_record(text, None, written=heard, with_rules=False)
    assert [problem["name"]["text"] for problem in alone["problems"]] == ["asthma"]


def _problem(text: str, name: str) -> tuple[Value, ...]:
    start = text.index(name)
    return (Value(0, "problem", "name", (0, 1), start, start + len(name)),)


def test_with_rules_everything_that_they_read_is_there(writer: RecordWriter) -> None:
    both = replace(writer, task=replace(writer.task, with_rules=True))
    for text, record in zip(NOTES, record_batch(batch_of(*NOTES), writer=both).column("record"), strict=True):
        ruled = [entity for entity in _entities(record) if "rules" in entity["readers"]]
        assert len(ruled) == len(list(_entities(merge_records([parse_record(text)]))))


@pytest.mark.parametrize("with_rules", [False, True])
def test_a_failed_window_costs_its_note_alone(writer: RecordWriter, with_rules: bool) -> None:
    windows = len(written_of(writer, NOTES[0])[0].completions)
    failing = _Counting(writer.engine, [windows + 1])
    task = replace(writer.task, with_rules=with_rules)
    done = record_batch(batch_of(*NOTES), writer=RecordWriter(failing, task))
    [rejection] = done.rejections
    assert (rejection.source_row, rejection.stage, rejection.reason) == (1, Stage.RECORD, Reason.DEADLINE)
    assert done.notes.num_rows == len(NOTES) - 1
    straight = record_batch(batch_of(*NOTES), writer=replace(writer, task=task)).column("record")
    assert done.column("record") == [straight[0], *straight[2:]]


def test_dead_and_cut_records_are_counted() -> None:
    dead, alive = Completion("", source_tokens=64), Completion("", values=_problem("gout", "gout"))
    cut = replace(alive, finish="length")
    notes = [WrittenNote((0, 0), (dead, alive)), WrittenNote((0,), (dead,)), WrittenNote((0,), (cut,)), WrittenNote((0,), (alive,), 3)]
    notes.append(WrittenNote((0,), (replace(dead, finish="length"),)))
    # Of a few words there may be nothing to say.
    assert not WrittenNote((0,), (replace(dead, source_tokens=63),)).is_dead
    failed = WrittenNote((0, 0), (dead, Completion.failed(DEADLINE, "DeadlineError")))
    counts = count_written([*notes, failed])
    assert {name: counts[name] for name in ("notes", "windows", "dead", "cut")} == {"notes": 6, "windows": 8, "dead": 2, "cut": 2}


def test_the_folder_says_how_the_model_is_asked_and_the_job_may_say_otherwise(folder: Path) -> None:
    task = RecordTask(resolve_model(str(folder)))
    assert task.decode_settings().max_new_tokens == FORMAT.max_new_tokens
    assert task.said()["prefix"] == FORMAT.prefix
    assert task.said()["max_source_tokens"] == FORMAT.max_source_tokens - 2
    mine = replace(task, prefix="", decode={"max_new_tokens": 50, "num_beams": 2}, max_source_tokens=40)
    assert (mine.decode_settings().max_new_tokens, mine.decode_settings().num_beams) == (50, 2)
    assert (mine.said()["prefix"], mine.said()["max_source_tokens"]) == ("", 40)


def test_a_checkpoints_rules_of_decoding_do_not_hold_under_the_constraint(tmp_path: Path) -> None:
    from tests.tiny_models import edit_json

    folder = make_record_model(tmp_path)
    edit_json(folder / "generation_config.json", no_repeat_ngram_size=3, min_length=9, num_beams=2)
    decode = RecordTask(resolve_model(str(folder))).decode_settings()
    assert (decode.no_repeat_ngram_size, decode.min_new_tokens, decode.num_beams) == (0, 0, 2)


def test_a_selection_model_is_refused(tmp_path: Path) -> None:
    folder = make_model("bart", tmp_path)
    save_selection_format(SelectionFormat(8, 4, (20,), 30, 0.5, 64, 8), folder)
    with pytest.raises(ConfigurationError, match="is a selection model"):
        RecordTask(resolve_model(str(folder))).format()


def test_a_bad_format_is_told(tmp_path: Path) -> None:
    folder = make_record_model(tmp_path, RecordFormat("p" * 400, 60, 20))
    task = RecordTask(resolve_model(str(folder)))
    with pytest.raises(ConfigurationError, match=r"tasks\.record\.prefix: 58 tokens"):
        RecordSettings(reader="model", task=task).writer(load_model(task.model, CPU))
    (folder / "chartmill.json").write_text('{"objective": "record", "format_version": 7}')
    with pytest.raises(ConfigurationError, match="format_version 7"):
        task.format()


def test_reprs_hold_no_text(writer: RecordWriter) -> None:
    [note] = written_of(writer, "Ursula has Marzipanosis.")
    assert "Marzipanosis" not in f"{note!r} {writer!r}"


def test_a_job_may_lower_the_window_and_never_raise_it(writer: RecordWriter) -> None:
    limits = {wanted: replace(writer.task, max_source_tokens=wanted).language(writer.engine).limit for wanted in (None, 40, 5000)}
    assert limits == {None: FORMAT.max_source_tokens - 2, 40: 40, 5000: FORMAT.max_source_tokens - 2}
