from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pyarrow import parquet

from captioner.bulk.output import Settings
from captioner.caption import Caption
from captioner.cluster.steps import PartFiles
from captioner.errors import CaptionerError, OutputError
from captioner.records import Record

ODD = os.fsdecode(b"\xff\n\xe2\x80\xa8.png")
SETTINGS: Settings = {"captioner": "1", "weights": "w", "decoding": {"beam_size": 3}}
ONE = [
    Record("a.png", (Caption("A dog.", -1.25),)),
    Record("b.png", error="b.png: file is empty"),
    Record(ODD, (Caption("Ein Hund: „so“, 🦄.", -2.5, confidence=0.75),)),
]
SEVERAL = [
    Record("a.png", (Caption("A dog.", -1.25, confidence=0.5), Caption("Dogs.", -3.0, confidence=0.25))),
    Record("b.png", error="b.png: file is empty"),
]


def files(folder: Path, kind: str = "jsonl", *, several: bool = False) -> PartFiles:
    parts = PartFiles(folder / "out", kind, several=several)
    parts.begin(SETTINGS, overwrite=False)
    return parts


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(("entries", "several"), [(ONE, False), (SEVERAL, True), ([], False)])
def test_parts_are_read_as_they_were_written(tmp_path: Path, kind: str, entries: list[Record], several: bool) -> None:
    parts = files(tmp_path, kind, several=several)
    images = [entry.image for entry in entries]
    assert parts.read(7, images) is None
    parts.write(7, entries)
    assert [path.name for path in (tmp_path / "out").glob("part*")] == [f"part-000007.{kind}"]
    assert parts.read(7, images) == entries
    assert parts.read(8, images) is None
    assert parts.read(7, [*images, "c.png"]) is None
    if images:
        assert parts.read(7, ["c.png", *images[1:]]) is None


def test_parquet_has_a_column_for_everything(tmp_path: Path) -> None:
    for several, entries in ((False, ONE), (True, SEVERAL)):
        parts = files(tmp_path, "parquet", several=several)
        parts.write(0, entries)
        table = parquet.read_table(parts.path(0))
        more = ["captions"] if several else []
        assert table.column_names == ["image", "caption", "log_prob", "confidence", *more, "error"]
        assert table["caption"].to_pylist()[:2] == ["A dog.", None]
        assert table["error"].to_pylist()[:2] == [None, "b.png: file is empty"]
    assert table["captions"].to_pylist()[0][1] == {"caption": "Dogs.", "log_prob": -3.0, "confidence": 0.25}


def test_a_damaged_part_is_one_line(tmp_path: Path) -> None:
    for kind in ("jsonl", "parquet"):
        parts = files(tmp_path, kind)
        for content in (b"{", b"[1]\n", b'{"image": 1}\n'):
            parts.path(0).write_bytes(content)
            with pytest.raises(OutputError, match=rf"part-000000.{kind}: is damaged; delete it, and the same"):
                parts.read(0, ["a.png"])


def test_other_settings_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    parts = PartFiles(tmp_path / "out", "jsonl", several=False)
    parts.open(SETTINGS, overwrite=False)
    assert not (tmp_path / "out").exists()
    parts.begin(SETTINGS, overwrite=False)
    parts.open({**SETTINGS, "captioner": "2"}, overwrite=False)
    with pytest.raises(OutputError, match="out: was begun with beam_size 3, not 4; give the same options"):
        parts.open({**SETTINGS, "decoding": {"beam_size": 4}}, overwrite=False)
    (tmp_path / "out" / "_captioner.json").write_text("{")
    with pytest.raises(OutputError, match=r"_captioner.json: is damaged; `overwrite` begins anew"):
        parts.open(SETTINGS, overwrite=False)
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "monday.txt").touch()
    with pytest.raises(OutputError, match="diary: is not empty, and no run has written there"):
        PartFiles(tmp_path / "diary", "jsonl", several=False).open(SETTINGS, overwrite=False)
    with pytest.raises(OutputError, match=r"monday.txt: is a file, but many are to be written"):
        PartFiles(tmp_path / "diary" / "monday.txt", "jsonl", several=False).open(SETTINGS, overwrite=False)
    with pytest.raises(OutputError, match="there is no folder"):
        PartFiles(tmp_path / "absent" / "out", "jsonl", several=False).open(SETTINGS, overwrite=False)


def test_beginning_anew_removes_parts_and_nothing_else(tmp_path: Path) -> None:
    parts = files(tmp_path)
    parts.write(0, ONE)
    (tmp_path / "out" / "notes.txt").touch()
    other: Settings = {**SETTINGS, "weights": "x"}
    parts.open(other, overwrite=True)
    assert parts.path(0).exists()
    parts.begin(other, overwrite=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"_captioner.json", "notes.txt"}
    assert json.loads((tmp_path / "out" / "_captioner.json").read_text())["weights"] == "x"


def test_what_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match=r"cannot write .*out: No such file or directory"):
        files(tmp_path / "absent")
    parts = files(tmp_path)
    parts.path(0).mkdir()
    with pytest.raises(CaptionerError, match=r"cannot write .*part-000000.jsonl: Is a directory"):
        parts.write(0, ONE)
