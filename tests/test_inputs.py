"""Listing the inputs: folders, files, globs, hive partitions, on disk and on S3."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from tests.conftest import note_rows, write_notes
from transforms.inputs import current_identity, disk_identity, list_inputs, open_parquet, partition_values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    for name in ("b.parquet", "a.PQ", "deep/er/c.parq", "_hidden/x.parquet", ".y.parquet"):
        write_notes(root / name, note_rows(2))
    (root / "scan.pdf").write_text("x")
    return root


def paths(*uris: str) -> list[str]:
    return [file.path for file in list_inputs(uris).files]


def test_a_folder_gives_its_visible_files(folder: Path) -> None:
    listing = list_inputs([str(folder)])
    assert [f.path for f in listing.files] == ["a.PQ", "b.parquet", "deep/er/c.parq"]
    assert listing.ignored == {".pdf": 1}


def test_a_file_and_a_glob_give_what_they_name(folder: Path) -> None:
    assert paths(str(folder / "b.parquet")) == ["b.parquet"]
    assert paths(f"file://{folder}/b.parquet") == ["b.parquet"]
    assert paths(str(folder / "**" / "*.parq")) == ["deep/er/c.parq"]


def test_equal_paths_of_two_inputs_are_told_apart(tmp_path: Path) -> None:
    for year in ("2024", "2025"):
        write_notes(tmp_path / year / "x.parquet", note_rows(1))
    assert paths(str(tmp_path / "2024"), str(tmp_path / "2025")) == ["2025/x.parquet", "x.parquet"]


def test_unusable_inputs_are_explained_without_their_names(tmp_path: Path) -> None:
    (tmp_path / "canary.pdf").write_text("x")
    cases = {
        str(tmp_path): "input 1 holds no file to read .* found 1 × .pdf",
        str(tmp_path / "canary"): "input 1 does not exist",
        str(tmp_path / "canary*.parquet"): "input 1 .a glob. matches no file",
        "gs://canary/x": "unknown scheme 'gs'",
        f"canary:{tmp_path}": "input 1 does not exist",
    }
    for uri, says in cases.items():
        with pytest.raises(ConfigurationError, match=says) as caught:
            list_inputs([uri])
        assert "canary" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="empty"):
        list_inputs([])


def test_only_common_suffixes_are_told(tmp_path: Path) -> None:
    for name in ("visit.canary", "Dr. Canary", "canary", "b.docx"):
        (tmp_path / name).write_text("x")
    with pytest.raises(ConfigurationError, match=r"found 2 × \(another suffix\), 1 × \(none\), 1 × \.docx"):
        list_inputs([str(tmp_path)])


def test_identity_follows_content_not_time(folder: Path) -> None:
    path = folder / "b.parquet"
    before = disk_identity(str(path))
    os.utime(path, (1, 1))
    assert disk_identity(str(path)) == before
    write_notes(path, note_rows(3))
    assert disk_identity(str(path)) != before
    path.unlink()
    assert current_identity(str(path)) is None


def test_hive_partitions() -> None:
    assert partition_values("year=2024/ward=A%20B/x.parquet") == {"year": "2024", "ward": "A B"}
    assert partition_values("ward=__HIVE_DEFAULT_PARTITION__/x.parquet") == {"ward": None}
    assert partition_values("x=1.parquet") == {}


@pytest.mark.s3
def test_s3_prefix_object_and_glob(bucket: str, folder: Path) -> None:
    from transforms.store import s3_client

    for path in folder.rglob("*"):
        if path.is_file():
            s3_client().upload_file(str(path), bucket, f"in/{path.relative_to(folder).as_posix()}")
    listing = list_inputs([f"s3://{bucket}/in/"])
    assert [f.path for f in listing.files] == ["a.PQ", "b.parquet", "deep/er/c.parq"]
    assert listing.ignored == {".pdf": 1}
    assert paths(f"s3://{bucket}/in") == ["a.PQ", "b.parquet", "deep/er/c.parq"]
    assert paths(f"s3://{bucket}/in/b.parquet") == ["b.parquet"]
    assert paths(f"s3://{bucket}/in/deep/*") == ["er/c.parq"]
    file = listing.files[1]
    assert current_identity(file.location) == file.identity
    assert open_parquet(file.location, file.size).metadata.num_rows == 2
    with pytest.raises(ConfigurationError, match="no such bucket"):
        list_inputs(["s3://no-such-bucket-here/x"])
    with pytest.raises(ConfigurationError, match="no file at all"):
        list_inputs([f"s3://{bucket}/nothing/"])
