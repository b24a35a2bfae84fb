"""`chartmill export`: what a run released, as FHIR R4 resources, OMOP NOTE_NLP or CSV, to a folder or S3. Prints counts only."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.exits import DONE, FAILED, AsJson, finish
from schemas.errors import ConfigurationError
from transforms.exports import CANONICAL, Absent, TableFormat, Target

if TYPE_CHECKING:
    from transforms.store import Encryption

EPILOG = "Example: `chartmill export out/ --to fhir --output fhir-export/ --validate`"
_URL = re.compile(r"https?://[^\s/?#]+(?:/[^\s?#]*)?")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_ENCRYPTIONS = ("aes256", "bucket", "kms")


def export(
    run: Annotated[str, typer.Argument(metavar="OUT", help="Folder or s3:// prefix of a run.")],
    to: Annotated[Target, typer.Option("--to", help="`fhir` (R4, NDJSON), `omop` (CDM 5.4 NOTE_NLP) or `csv`.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder or s3:// prefix for the export; it will hold patient text.")],
    version: Annotated[str | None, typer.Option("--version", help="Another released version than the current one.")] = None,
    validate: Annotated[bool, typer.Option("--validate", help="Read the export back and check it; FHIR needs `chartmill[fhir]`.")] = False,
    canonical: Annotated[str, typer.Option("--canonical", help="URL of yours that names our FHIR extensions and id systems.")] = CANONICAL,
    patient_system: Annotated[str | None, typer.Option("--patient-system", help="FHIR identifier system of your patient ids.")] = None,
    absent: Annotated[
        Absent, typer.Option("--absent", help="FHIR problems and allergies that the note denies: marked refuted, or left out.")
    ] = Absent.REFUTED,
    table_format: Annotated[TableFormat, typer.Option("--table-format", help="Of OMOP tables.")] = TableFormat.PARQUET,
    encryption: Annotated[str | None, typer.Option("--encryption", help="On S3: `kms` (with --kms-key), `aes256` or `bucket`.")] = None,
    kms_key: Annotated[str | None, typer.Option("--kms-key", help="On S3: the key for SSE-KMS.")] = None,
    as_json: AsJson = False,
) -> None:
    """Export the released summaries and records. Run it again to go on after a stop, or after a newer run: superseded files go.

    The export holds patient text: keep it as you would keep the notes.
    """
    from pipeline.exporting.job import run_export
    from transforms.exports.shard import ExportSettings
    from transforms.store import open_store, open_to_read

    settings = ExportSettings(to, _canonical(canonical), _system(patient_system), absent, table_format)
    store, destination = open_to_read(run), open_store(output, _encryption(output, encryption, kms_key))
    if validate:
        _check_installed(to)
    outcome = run_export(store, destination, settings, version, on_shard=_progress)
    figures: dict[str, Any] = {"target": to.value, **outcome.figures(), "validated": None}
    if validate:
        from pipeline.exporting.validation import validate_export

        figures["validated"] = validate_export(destination, settings, outcome)
    from pipeline.exporting.terminal import print_export

    print_export(figures, output)
    finish(FAILED if validate and figures["validated"]["problems"] else DONE, as_json, export=figures)


def _canonical(url: str) -> str:
    if not _URL.fullmatch(url):
        raise ConfigurationError(f"--canonical: {url!r} is no URL; for instance https://hospital.example/fhir")
    return url.rstrip("/")


def _system(uri: str | None) -> str | None:
    if uri is not None and not _URI.fullmatch(uri):
        raise ConfigurationError(f"--patient-system: {uri!r} is no URI; for instance https://hospital.example/mrn or urn:oid:2.16.840.1")
    return uri


def _encryption(output: str, mode: str | None, kms_key: str | None) -> Encryption | None:
    from transforms.store import Encryption

    if not output.startswith("s3://"):
        return None
    mode = mode or ("kms" if kms_key else None)
    if mode is None:
        raise ConfigurationError(
            "--encryption: not set. Patient text is not written to S3 without saying how it is encrypted; give --kms-key KEY, "
            "--encryption aes256, or --encryption bucket to rely on the bucket's default encryption"
        )
    if mode not in _ENCRYPTIONS:
        raise ConfigurationError(f"--encryption: {mode!r} is unknown; choices: {', '.join(_ENCRYPTIONS)}")
    if (mode == "kms") != (kms_key is not None):
        raise ConfigurationError("--encryption: kms needs --kms-key, and only kms takes one")
    return Encryption(mode, kms_key)


def _check_installed(target: Target) -> None:
    """Before the work, rather than after it."""
    from importlib.util import find_spec

    if target is Target.FHIR and find_spec("fhir") is None:
        raise ConfigurationError("--validate: FHIR is checked with fhir.resources; pip install 'chartmill[fhir]'")


def _progress(done: int, shards: int) -> None:
    if sys.stderr.isatty():
        print(f"\rshards {done}/{shards}", end="" if done < shards else "\n", file=sys.stderr, flush=True)
