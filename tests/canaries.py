"""Canaries: random strings in every place where patient data can stand, and the search for them in all that a run says or leaves behind."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import logging
import pickle
import secrets
import stat
import string
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import cli
from pipeline.leaks import check_leaks
from pipeline.planning import RunPlan, plan_run
from pipeline.prepare import prepare
from pipeline.quiet import QUIETED
from tests.conftest import echo_job, note_rows, write_notes
from transforms.store import LocalStore

# What may hold patient data: the data files, and what has to name the input files.
DATA_FOLDERS = ("summaries", "records", "rejections")
LEDGER_FOLDERS = ("plans", "ids")
LENIENT = ("--set", "gate.max_quarantined_share=1", "--set", "gate.max_flagged_share=1", "--set", "gate.contract=ignore")


def canary() -> str:
    """24 random letters, upper and lower case: long enough that half of it cannot occur by chance."""
    return "".join(secrets.choice(string.ascii_letters) for _ in range(24))


def traces(value: str) -> list[bytes]:
    """What betrays a canary, in lower case: either half of it, the whole as base64 and hex, and how its plain hashes begin."""
    raw = value.encode()
    hashes = [hashlib.new(name, raw).hexdigest() for name in ("md5", "sha1", "sha256", "sha512")]
    hashes += [hashlib.blake2b(raw, digest_size=size).hexdigest() for size in (8, 16, 32, 64)]
    told = [value[:12], value[12:], base64.b64encode(raw).decode(), raw.hex(), *(found[:12] for found in hashes)]
    return [trace.lower().encode() for trace in told]


class Canaries:
    """One canary per place, made when it is first asked for."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}
        self._traces: dict[bytes, str] = {}

    def __getitem__(self, place: str) -> str:
        if place not in self._of:
            self._of[place] = canary()
            self._traces |= dict.fromkeys(traces(self._of[place]), place)
        return self._of[place]

    def assert_absent(self, what: str, content: str | bytes) -> None:
        raw = (content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content).lower()
        # Collected first: a failing assertion must say which canary, not print everything.
        betrayed = sorted({place for trace, place in self._traces.items() if trace in raw})
        assert not betrayed, f"{what} betrays: {', '.join(betrayed)}"

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._of))


def plant(folder: Path, canaries: Canaries) -> Path:
    """Notes with a canary in every place: good rows, rows that the contract sets aside, unreadable cells, odd columns, broken files."""
    c = canaries
    marked = f"{c['file name']}.parquet"
    rows = [{**row, "text": f"{row['text']} Seen with {c['text']} today. {c['text']}: 17 mg."} for row in note_rows(6)]
    rows[0] |= {"note_id": c["note id"]}
    rows[1] |= {"patient_id": c["patient id"], "encounter_id": c["encounter id"], "ward": c["pass-through value"]}
    rows[1] |= {"note_type": c["unknown note type"], "written_at": c["bad date"]}
    rows[2] |= {"note_id": c["duplicate id"]}
    rows[3] |= {"note_id": c["duplicate id"]}
    rows[4] |= {"text": " ", "note_id": c["id of a blank note"]}
    rows[5] |= {"text": f"{c['unprintable text']}" + "\x01" * 30}
    write_notes(folder / marked, rows)
    hive = folder / f"site={c['hive value']}" / "clinic=A%20B"
    write_notes(hive / "part.parquet", [{"note_id": "h1", "text": note_rows(1)[0]["text"], "ward": 7}])
    write_table(
        folder / "bytes.parquet",
        {"note_id": ["b1", "b2"], "text": [b"\xff\xfe " + c["non-UTF-8 bytes"].encode(), b"A plain note of a short visit."]},
    )
    write_table(folder / "text.parquet", {"note_id": ["s1"], "text": invalid_string(c["non-UTF-8 string"])})
    write_table(
        folder / "odd.parquet",
        {"note_id": ["o1"], "text": ["A note with an odd column."], "ward": invalid_string(c["non-UTF-8 pass-through"])},
    )
    dates = pa.array([2**62, 0], pa.timestamp("ms"))
    write_table(
        folder / "dates.parquet",
        {"note_id": [c["id with a date that fits no calendar"], "d2"], "text": ["Far from today."] * 2, "written_at": dates},
    )
    (folder / f"{c['corrupt file name']}.parquet").write_bytes(f"PAR1 {c['corrupt file content']}".encode())
    (folder / f"{c['empty file name']}.parquet").write_bytes(b"")
    damaged = write_notes(
        folder / f"{c['damaged file name']}.parquet",
        [{"note_id": f"x{i}", "text": f"{c['damaged page']} {i}"} for i in range(50)],
        compression="none",
        use_dictionary=False,
    )
    damage(damaged, c["damaged page"].encode())
    plant_text_files(folder, canaries)
    return folder


def plant_text_files(folder: Path, c: Canaries) -> None:
    """The same for the formats of text: names, malformed lines, undecodable bytes, cut streams, clinical documents."""
    text = "A plain note of a short visit. Seen with"
    (folder / f"{c['text file name']}.txt").write_text(f"{text} {c['text of a text file']}.")
    (folder / "bytes.txt").write_bytes(b"caf\xc3\xa9 \xc3\xa0 \xff" + c["undecodable text file"].encode())
    good = f'{{"note_id": "{c["JSON id"]}", "text": "{text} {c["JSON text"]}.", "ward": {{"{c["JSON key"]}": "{c["JSON value"]}"}}}}\n'
    bad = f'{{"note_id": "{c["malformed JSON line"]}", "text": \n["{c["JSON that is no object"]}"]\n'
    nested = f'{{"note_id": "{c["id of a note whose text is an object"]}", "text": {{"a": "{c["text that is an object"]}"}}}}\n'
    (folder / "lines.jsonl").write_text(good + bad + nested)
    rows = f'c1,"{text} {c["CSV text"]}."\nc2,{c["ragged CSV row"]},x,y\n{c["malformed CSV line"]},"open\nc4,{text}\n'
    (folder / "rows.csv").write_text(f"note_id,text,{c['CSV header']}\n{rows}")
    (folder / "headless.csv").write_text(f"{c['first row of a headless file']},{text}\n7,x\n")
    cut = gzip.compress("".join(good.replace(c["JSON id"], f"g{i}{c['gzip content']}") for i in range(40)).encode())
    (folder / f"{c['gzip file name']}.jsonl.gz").write_bytes(cut[:-12])
    (folder / f"{c['zstd file name']}.txt.zst").write_bytes(b"\x28\xb5\x2f\xfd" + c["broken zstd"].encode())
    (folder / f"{c['bzip2 file name']}.csv.bz2").write_bytes(b"BZh9" + c["broken bzip2"].encode())
    (folder / f"visit of.{c['file suffix']}").write_text(text)
    (folder / c["name of a folder"]).mkdir()
    (folder / c["name of a folder"] / "note.txt").write_text(f"{text} a nurse.")
    markup = [f"{{\\rtf1 {text} {c['broken RTF']} {{", f"<html><p title='{c['HTML attribute']}'>{text}" + "<div>" * 2000]
    (folder / "markup.jsonl").write_text("".join(json.dumps({"note_id": f"m{i}", "text": t}) + "\n" for i, t in enumerate(markup)))
    (folder / "notes.fhir.json").write_text(json.dumps({"resourceType": "Bundle", "entry": [{"resource": r} for r in fhir_resources(c)]}))
    (folder / "bundle.json").write_text(f'{{"resourceType": "Bundle", "entry": [{{"{c["FHIR bundle that breaks off"]}": ')
    (folder / "notes.hl7").write_text(f"MSH|^~\\&|{c['HL7 header']}\rPID|1||{c['HL7 patient']}\r")
    (folder / "notes.ccda").write_text(f"<ClinicalDocument><title>{c['C-CDA title']}</title>")


def plant_unusable(folder: Path, c: Canaries) -> list[Path]:
    """Inputs without the columns that a job needs, each in a folder of its own: names of columns, keys and suffixes may be patients'."""
    table = pa.table({c["Parquet column"]: ["x"]})
    nested = pa.table({"note_id": ["x"], "text": [{c["field of a struct"]: "x"}]})
    keys = json.dumps({c["key of an object"]: "x", c["other key"]: {c["inner key"]: 1}})
    row = [c["first field"].capitalize(), f"{c['given name']} {c['family name']}", "male"]
    files: dict[str, bytes] = {
        "headless.csv": ",".join(row).encode() + b"\na,b,c\n",
        "headless.tsv": "\t".join(row).encode() + b"\na\tb\tc\n",
        "headless.psv": "|".join(row).encode() + b"\n",
        "headless.csv.gz": gzip.compress(";".join(row).encode() + b"\na;b;c\n"),
        "headed.csv": f"note_id,{c['name in a header']}\n1,2\n".encode(),
        "keys.jsonl": f"{keys}\n{keys}\n".encode(),
        "list.json": f"[{keys}]".encode(),
        f"visit.{c['suffix'].lower()}": b"x",
        "columns.parquet": parquet_bytes(table),
        "struct.parquet": parquet_bytes(nested),
        f"{c['hive key']}=1/columns.parquet": parquet_bytes(table),
    }
    folders = [folder / f"unusable-{number}" for number in range(len(files))]
    for inside, (name, content) in zip(folders, files.items(), strict=True):
        (inside / name).parent.mkdir(parents=True)
        (inside / name).write_bytes(content)
    return folders


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def fhir_resources(c: Canaries) -> list[dict[str, Any]]:
    data = base64.b64encode(f"A plain note of a short visit. {c['FHIR text']}.".encode()).decode()
    subject = {"reference": f"Patient/{c['FHIR patient']}", "display": c["FHIR patient name"]}
    attachments = [
        {"contentType": "text/plain", "data": data},
        {"contentType": "text/plain", "data": f"!{c['bad base64']}"},
        {"contentType": "application/pdf", "data": data, "title": c["FHIR attachment title"]},
        {"url": f"https://files.example.com/{c['FHIR url']}"},
    ]
    return [
        {"resourceType": "DocumentReference", "id": f"{c['FHIR id']}{i}", "subject": subject, "content": [{"attachment": attachment}]}
        for i, attachment in enumerate(attachments)
    ]


def write_table(path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), path)


def invalid_string(marked: str) -> pa.Array:
    """One string cell whose bytes are not UTF-8."""
    raw = b"\xc3\x28 " + marked.encode()
    offsets = pa.array([0, len(raw)], pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(raw)])


def damage(path: Path, within: bytes) -> None:
    """Overwrite a page header: the footer still promises rows that cannot be decoded any more."""
    raw = bytearray(path.read_bytes())
    place = raw.index(within)
    raw[place - 40 : place - 4] = b"\xff" * 36
    path.write_bytes(bytes(raw))


@dataclass
class Said:
    """Everything that was said during a test, by name of where."""

    parts: list[tuple[str, str]] = field(default_factory=list)

    def add(self, where: str, text: str) -> None:
        self.parts.append((where, text))

    def add_exception(self, error: BaseException) -> None:
        self.add("exception", f"{error} {error!r} {error.args}")
        self.add("traceback", "".join(traceback.format_exception(error)))
        self.add("pickled exception", repr(pickle.dumps(error)))

    def assert_clean(self, canaries: Canaries) -> None:
        for where, text in self.parts:
            canaries.assert_absent(where, text)


def command(capfd: pytest.CaptureFixture[str], said: Said, *arguments: str) -> int:
    """Run a command in this process and keep all that it prints, native code included."""
    # The command line turns loggers down for its process; here that is every other test's process.
    levels = {name: logging.getLogger(name).level for name in QUIETED}
    try:
        code = cli.main(list(arguments))
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    out, err = capfd.readouterr()
    said.add(f"stdout of {arguments[0]}", out)
    said.add(f"stderr of {arguments[0]}", err)
    return code


@contextmanager
def every_log_record(said: Said) -> Iterator[None]:
    """All log records of all libraries at level DEBUG, formatted with their tracebacks."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(pathname)s %(message)s"))
    root = logging.getLogger()
    level, levels = root.level, {name: logging.getLogger(name).level for name in ("apache_beam", "transformers", "py.warnings")}
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        for name, earlier in levels.items():
            logging.getLogger(name).setLevel(earlier)
        said.add("log", stream.getvalue())


def assert_files_clean(output: Path, canaries: Canaries) -> None:
    """Contents and names of everything under the output folder but the data files; Parquet is searched decoded."""
    for path in sorted(output.rglob("*")):
        relative = path.relative_to(output)
        canaries.assert_absent("a file name", str(relative))
        if path.is_dir() or relative.parts[0] in DATA_FOLDERS:
            continue
        if relative.parts[0] == "_runs" and (relative.parts[2] in LEDGER_FOLDERS or relative.name == "live.json"):
            continue
        content = json.dumps(pq.read_table(path).to_pylist(), default=str) if path.suffix == ".parquet" else path.read_bytes()
        canaries.assert_absent(relative.name, content)
    if (output / "_runs").is_dir():
        assert check_leaks(LocalStore(output)).leaks == ()


def assert_private(output: Path) -> None:
    """Files 0600, folders 0700, the output folder included."""
    for path in (output, *output.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path.relative_to(output)


def data_of(output: Path) -> str:
    files = [f for kind in DATA_FOLDERS for f in (output / kind).rglob("*.parquet")]
    return json.dumps([pq.ParquetFile(f).read().to_pylist() for f in files], default=str)


def planned(notes: Path, output: Path) -> tuple[Any, RunPlan]:
    prepared = prepare(echo_job(notes, output))
    return prepared, plan_run(prepared.store, prepared.version, "run", prepared.plan_settings(), prepared.said_in_plan())
