from __future__ import annotations

import json
from pathlib import Path

import pytest

from captioner.datasets.records import inside, open_text, read_json
from captioner.errors import DatasetError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b'{"images": [', "not valid JSON at line 1, column 13 .*cut short"),
        (b"[1,\n2,\n}", "not valid JSON at line 3"),
        (b'{"a": "\xff\xfe"}', "not UTF-8 text"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[" + b"9" * 5000 + b"]", "not valid JSON"),
    ],
)
def test_broken_json_names_the_file_and_the_place(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "captions.json"
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=f"captions.json: {message}") as caught:
        read_json(file)
    assert "\n" not in str(caught.value)


def test_absent_file_and_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no such file"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_json(tmp_path)


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps({"é": 1}).encode())
    assert read_json(file) == {"é": 1}


def test_not_utf8_is_reported_while_reading_too(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"fine\n" * 10_000 + "café".encode("latin-1"))
    with pytest.raises(DatasetError, match="not UTF-8"), open_text(file) as lines:
        list(lines)


@pytest.mark.parametrize("name", ["../a.jpg", "b/../../a.jpg", "/etc/a.jpg", "..", ".", "", "b/..", "a\0.jpg"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=r"captions\.json"):
        inside(tmp_path / "photos", name, Path("captions.json"))


@pytest.mark.parametrize("name", ["a.jpg", "b/a.jpg", "b/../a.jpg", "..a.jpg"])
def test_names_inside_the_folder_are_joined(name: str) -> None:
    assert inside(Path("photos"), name, Path("f")) == Path("photos") / name


def test_an_absolute_name_inside_the_folder_is_accepted(tmp_path: Path) -> None:
    assert inside(tmp_path, str(tmp_path / "a.jpg"), Path("f")) == tmp_path / "a.jpg"
