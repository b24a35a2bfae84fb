"""Objects that end up in somebody's log or error message: their reprs and what stage edges let through hold no patient data."""

from __future__ import annotations

import copyreg
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pyarrow as pa
import pytest

from schemas.commit import Piece, Shard
from schemas.errors import ChartmillError, ConfigurationError
from schemas.rejection import Reason, Rejection, Stage
from tests.canaries import Canaries, Said, planned, plant
from transforms.batch import NoteBatch, StageError, guarded
from transforms.columns import ColumnMap
from transforms.engine import Completion, Request, Tokenized
from transforms.inputs import FoundFile, Listing
from transforms.passages import Part
from transforms.prompts import Passage, Prompt, Prompts, Summary
from transforms.quantities import Quantity
from transforms.read import read_segment
from transforms.reduce import Answer
from transforms.sections import read_page


def test_reprs_show_no_patient_data(tmp_path: Path, canaries: Canaries) -> None:
    notes = plant(tmp_path / "notes", canaries)
    prepared, plan = planned(notes, tmp_path / "out")
    batches = [b for segment in plan.to_do for b in read_segment(segment, ColumnMap())]
    rejections = [r for batch in batches for r in batch.rejections]
    assert rejections and any(canaries["text"] in str(b.column("text")) for b in batches)
    for thing in (prepared, prepared.job, plan, plan.to_do, plan.plan, batches, rejections):
        canaries.assert_absent(type(thing).__name__, f"{thing!r} {thing}")


def data_classes() -> list[type]:
    found = {}
    for package in ("schemas", "transforms"):
        for module in walk_packages(import_module(package).__path__, f"{package}."):
            for value in vars(import_module(module.name)).values():
                if isinstance(value, type) and is_dataclass(value) and value.__module__ == module.name:
                    found[f"{value.__module__}.{value.__qualname__}"] = value
    return list(found.values())


# What fields that hold patient data are called, and those of our settings and figures that bear such a name.
PATIENT_FIELDS = {
    "text", "note_id", "patient_id", "path", "location", "locations", "ids", "name", "value", "unit", "number", "lined", "folded", "source",
    "sources", "uris", "notes", "values", "constant", "passthrough_constant", "quote", "cause_text", "table",
}  # fmt: skip
NOT_OF_PATIENTS = {
    ("ModelFiles", "source"),
    ("DataFile", "path"),
    ("Usage", "source"),
    ("_Vital", "value"),
    ("_Result", "name"),
    ("_Result", "unit"),
    ("_Result", "value"),
    ("Standing", "notes"),
    ("InputFile", "number"),
    ("Layout", "quote"),
    ("Suite", "name"),
    ("Limits", "source"),
    ("Spans", "source"),
    ("Copy", "name"),
    ("Enum", "name"),
    ("Number", "name"),
    ("Line", "name"),
    ("ExportNote", "number"),
    ("Part", "name"),
}


def test_fields_that_hold_patient_data_stay_out_of_reprs() -> None:
    classes = data_classes()
    assert len(classes) > 25
    held = {(c.__name__, f.name): f.repr for c in classes for f in fields(c) if f.name in PATIENT_FIELDS}
    assert {("Request", "text"), ("InputFile", "path"), ("Section", "name"), ("Quantity", "number")} <= set(held)
    assert {name for name, shown in held.items() if shown} == NOT_OF_PATIENTS


def test_small_objects_show_no_text(canaries: Canaries) -> None:
    text = canaries["text"]
    found = FoundFile(text, f"/data/{text}", 1, "1-0")
    page = read_page(f"{text}:\nA line below its own heading.\n")
    assert page.sections
    things = [
        Request(text),
        Completion(text, spans=((0, 1),)),
        Tokenized((1,), ((0, 1),)),
        Passage(text, 0, 3, ((0, 3),)),
        Prompt(text, Passage(text, 0, 3, ())),
        Prompts((Prompt(text, Passage(text, 0, 3, ())),)),
        Part(text, Passage(text, 0, 3, ())),
        Answer(Summary(text), (Completion(text),), 1, 0),
        Summary(text),
        found,
        Listing((found,), {}),
        Rejection(0, 1, Stage.READ, Reason.BAD_DATE, text, text=text),
        Quantity(0, 1, text, text, True),
        page,
        page.sections,
    ]
    for thing in things:
        canaries.assert_absent(type(thing).__name__, f"{thing!r} {thing}")


@pytest.fixture
def whole_exceptions() -> Iterator[None]:
    """Exceptions are pickled with traceback and context, as where Dask was imported."""
    tblib = pytest.importorskip("tblib.pickling_support")
    before = copyreg.dispatch_table.copy()
    tblib.install()
    yield
    copyreg.dispatch_table.clear()
    copyreg.dispatch_table.update(before)


def test_guarded_keeps_the_kind_and_the_place_only(canaries: Canaries, said: Said, whole_exceptions: None) -> None:
    errors = [
        ValueError(canaries["text"]),
        OSError(13, "Permission denied", f"/data/{canaries['file name']}"),
        UnicodeDecodeError("utf-8", canaries["text"].encode(), 0, 1, "bad"),
        KeyError(canaries["note id"]),
    ]
    for error in errors:
        with pytest.raises(StageError) as failure, guarded("read"):
            raise error
        said.add_exception(failure.value)
    with pytest.raises(ConfigurationError, match="as it is"), guarded("read"):
        raise ConfigurationError("as it is")
    assert "PermissionError (EACCES)" in said.parts[3][1] and issubclass(StageError, ChartmillError)
    said.assert_clean(canaries)


def test_batches_pass_repr_to_nobody(canaries: Canaries) -> None:
    """Beam's type checks and Dask's logs show elements as repr() does."""
    batch = NoteBatch(Shard("a", "b", (Piece(0, 0, 1),)), pa.table({"text": [canaries["text"]]}))
    canaries.assert_absent("batch", f"{batch} {batch!r} {[batch]} {(batch, {'k': batch})}")
    assert "notes=1" in repr(batch)
