from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from captioner.bulk.merge import merge
from captioner.bulk.options import FolderOptions
from captioner.bulk.run import Progress, caption_folder
from captioner.bulk.store import store_of
from captioner.cli import main
from captioner.errors import OutputError
from tests.bulk import fakes

KINDS = ("jsonl", "csv", "text", "coco")


@pytest.fixture(autouse=True)
def _colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.engine.Engine", fakes.ColourEngine)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images, of which four are broken: half of the first shard of three, all of the second."""
    folder = tmp_path / "pictures"
    for number in range(10):
        fakes.save_colour(folder / f"{number:012}.png", number)
    for number in (1, 3, 4, 5):
        (folder / f"{number:012}.png").write_text("broken")
    return folder


def run(folder: Path, output: Path, kind: str, **options: object) -> Path:
    choices = FolderOptions(output=str(output), format=kind, workers=0, **options)  # type: ignore[arg-type]
    caption_folder([str(folder)], choices, fakes.colour_model(), Progress())
    return output


def shards(folder: Path, tmp_path: Path, kind: str, count: int) -> list[str]:
    numbers = range(1, count + 1)
    return [str(run(folder, tmp_path / f"part-{n}", kind, shard=f"{n}/{count}")) for n in numbers]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 13])
@pytest.mark.parametrize("kind", KINDS)
def test_merged_shards_equal_one_run(folder: Path, tmp_path: Path, kind: str, count: int) -> None:
    whole = run(folder, tmp_path / "whole", kind).read_bytes()
    parts = shards(folder, tmp_path, kind, count)
    assert merge(sorted(parts, reverse=True), str(tmp_path / "merged"))
    assert (tmp_path / "merged").read_bytes() == whole
    for part in parts:
        store_of(Path(part)).unlink()
    assert not merge(parts, str(tmp_path / "merged"), overwrite=True)
    assert (tmp_path / "merged").read_bytes() == whole


def test_what_is_missing_double_or_foreign_is_refused(folder: Path, tmp_path: Path) -> None:
    parts = shards(folder, tmp_path, "jsonl", 3)
    merged = tmp_path / "merged"
    copy = tmp_path / "copy"
    copy.write_bytes(Path(parts[1]).read_bytes())
    store_of(copy).write_bytes(store_of(Path(parts[1])).read_bytes())
    half = run(folder, tmp_path / "half", "jsonl", shard="1/2")
    other = run(folder, tmp_path / "other", "jsonl", shard="1/3", prepend="photo of")
    table = run(folder, tmp_path / "table", "csv", shard="3/3")
    for shard, message in {
        (*parts[:2],): "1 of 3 shards are missing, such as 3",
        (parts[0],): "2 of 3 shards are missing, such as 2",
        (*parts, parts[0]): "part-1: is given twice",
        (*parts, str(copy)): "copy and .*part-2 are both shard 2",
        (parts[0], str(half)): "half: is one of 2 shards, .*part-1 of 3",
        (str(other), *parts[1:]): "part-2: does not go with .*other: prepend photo of, not none",
        (*parts[:2], str(table)): "table: does not go with .*part-1: format jsonl, not csv",
        (*parts[:2], str(tmp_path / "absent")): "absent: no such file",
        (*parts[:2], str(folder)): "pictures: is no regular file",
    }.items():
        with pytest.raises(OutputError, match=message):
            merge(shard, str(merged))
    with pytest.raises(OutputError, match="is one of the shards"):
        merge(parts, parts[0], overwrite=True)
    assert not merged.exists()
    merged.write_text("mine")
    with pytest.raises(OutputError, match="merged: is there already; `overwrite` replaces it"):
        merge(parts, str(merged))
    assert merged.read_text() == "mine"


def test_images_that_came_between_two_shards_are_noticed(folder: Path, tmp_path: Path) -> None:
    first = run(folder, tmp_path / "part-1", "jsonl", shard="1/2")
    fakes.save_colour(folder / "new.png", 40)
    second = run(folder, tmp_path / "part-2", "jsonl", shard="2/2")
    with pytest.raises(OutputError, match=r"part-2: does not go with .*: images 10, not 11"):
        merge([str(first), str(second)], str(tmp_path / "merged"))
    with pytest.raises(OutputError, match="part-1: was begun with images 10, not 11"):
        run(folder, first, "jsonl", shard="1/2")


def test_an_unfinished_or_running_shard_is_refused(folder: Path, tmp_path: Path) -> None:
    stopped = run(folder, tmp_path / "part-1", "jsonl", shard="1/2", fail_fast=True)
    second = run(folder, tmp_path / "part-2", "jsonl", shard="2/2")
    with pytest.raises(OutputError, match="part-1: is not finished; give its command again"):
        merge([str(stopped), str(second)], str(tmp_path / "merged"))
    running = sqlite3.connect(store_of(second), isolation_level=None)
    running.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OutputError, match="another captioner is writing here"):
        merge([str(second)], str(tmp_path / "merged"))
    running.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_without_its_end_is_refused(folder: Path, tmp_path: Path, kind: str) -> None:
    parts = shards(folder, tmp_path, kind, 2)
    for part in map(Path, parts):
        store_of(part).unlink()
    last = Path(parts[1])
    last.write_bytes(last.read_bytes()[:-2])
    with pytest.raises(OutputError, match="part-2: its end is missing; finish this shard first"):
        merge(parts, str(tmp_path / "merged"))
    assert not (tmp_path / "merged").exists()


def test_formats_are_told_apart_without_journals(folder: Path, tmp_path: Path) -> None:
    files = [run(folder, tmp_path / kind, kind) for kind in KINDS]
    for file in files:
        store_of(file).unlink()
    with pytest.raises(OutputError, match=r"csv: is in the format csv, .*jsonl in jsonl"):
        merge([str(file) for file in files], str(tmp_path / "merged"))
    (tmp_path / "empty").touch()
    merge([str(tmp_path / "empty"), str(files[0])], str(tmp_path / "merged"))
    assert (tmp_path / "merged").read_bytes() == files[0].read_bytes()


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = shards(folder, tmp_path, "coco", 2)
    capsys.readouterr()
    assert main(["merge", *parts, "--output", str(tmp_path / "merged.json")]) == 0
    assert capsys.readouterr() == ("", "")
    assert len(json.loads((tmp_path / "merged.json").read_text())) == 6
    assert main(["merge", *parts, "--output", str(tmp_path / "merged.json")]) == 2
    assert capsys.readouterr().err.startswith("captioner: error: --output ")
    store_of(Path(parts[0])).unlink()
    assert main(["merge", *parts, "--output", str(tmp_path / "merged.json"), "--overwrite"]) == 0
    assert "taken as they are, in the order given" in capsys.readouterr().err
