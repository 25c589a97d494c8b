from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from captioner.datasets.text import read_texts
from captioner.errors import DatasetError

TEXTS = [("a dog runs", "a brown dog"), ("ein Hund läuft",)]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["texts.jsonl", "texts.jsonl.gz"])
def test_each_line_is_what_people_wrote_of_one_image(tmp_path: Path, name: str) -> None:
    lines = "\n\n".join(json.dumps({"id": 1, "captions": texts}) for texts in TEXTS).encode()
    (tmp_path / name).write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    assert read_texts(tmp_path / name) == TEXTS


def test_captions_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", '{"captions": [" ", "a dog"]}', '{"captions": []}')
    assert read_texts(file) == [("a dog",)]


@pytest.mark.parametrize(
    "line", ['{"captions": "a dog"}', '{"captions": [1]}', '{"caption": ["a"]}', "[]", "a dog", "{"]
)
def test_a_line_of_another_kind_is_named(tmp_path: Path, line: str) -> None:
    file = write(tmp_path / "t.jsonl", '{"captions": ["a dog"]}', line)
    with pytest.raises(DatasetError, match=r"t\.jsonl: line 2 is (no object with a list of texts|not)"):
        read_texts(file)


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"captions": ["a dog"]}\n' * 1000)
    (tmp_path / "cut.gz").write_bytes(whole[:-20])
    (tmp_path / "no.gz").write_bytes(b"a dog")
    (tmp_path / "latin.gz").write_bytes(gzip.compress(("{}\n" + "café\n" * 9999).encode("latin-1"))[:-6])
    for name, match in (
        ("cut.gz", "cannot be read"),
        ("no.gz", "cannot be read"),
        ("latin.gz", r"not UTF-8 text \(line 2"),
        ("none.jsonl", "there is no such file"),
        (".", "Is a directory"),
    ):
        with pytest.raises(DatasetError, match=match):
            read_texts(tmp_path / name)
    with pytest.raises(DatasetError, match="holds no captions"):
        read_texts(write(tmp_path / "empty.jsonl", "\n"))
