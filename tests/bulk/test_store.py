"""The store beside an output: it is the truth of a run, whatever happened to the run or to its images."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioner.bulk import output, run, store
from captioner.bulk.merge import merge
from captioner.bulk.options import FolderOptions
from captioner.bulk.store import Store, store_of
from captioner.embed.folder import caption_folder
from captioner.errors import OutputError
from captioner.images import find
from captioner.images.tars import Tars
from captioner.progress import Progress
from tests.bulk import fakes

KINDS = ("jsonl", "csv", "text", "html", "coco")


@pytest.fixture(autouse=True)
def _colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.engine.Engine", fakes.ColourEngine)
    fakes.SEEN.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images with COCO's names, the third broken."""
    for number in range(8):
        save(tmp_path / "images" / f"{number:012}.jpg", number)
    (tmp_path / "images" / f"{2:012}.jpg").write_text("no image")
    return tmp_path / "images"


def save(path: Path, number: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (64, 48), (0, 0, 30 * number)).save(path, "JPEG", quality=95)


def caption(folder: Path, file: Path, **options: Any) -> tuple[int, int, int]:
    where = {} if options.get("format") == "sidecar" else {"output": str(file)}
    settings = FolderOptions(**{"workers": 0, "batch_size": 2, **where, **options})
    summary = caption_folder([str(folder)], settings, fakes.colour_model(), Progress())
    return summary.captioned, summary.skipped, summary.failed


@pytest.mark.parametrize("kind", [*KINDS, "sidecar"])
def test_an_image_whose_metadata_alone_have_changed_keeps_its_line(
    folder: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "captions"
    caption(folder, file, format=kind)
    rated, other = folder / f"{4:012}.jpg", folder / f"{5:012}.jpg"
    written = file if kind != "sidecar" else rated.with_suffix(".txt")
    before = written.read_bytes()
    subprocess.run(["exiftool", "-q", "-overwrite_original", "-Rating=5", "-Comment=x", rated], check=True)
    fakes.SEEN.clear()
    capsys.readouterr()
    assert caption(folder, file, format=kind) == (0, 7, 1)
    assert (written.read_bytes(), fakes.SEEN) == (before, [])
    assert "has changed" not in capsys.readouterr().err
    save(other, 1)  # looks like another image that is there
    Image.new("RGB", (64, 48), (9, 99, 199)).save(rated)
    assert caption(folder, file, format=kind) == (2, 5, 1)
    said = capsys.readouterr().err
    assert all(f"{path}: has changed; it is captioned anew" in said for path in (rated, other))
    assert written.read_bytes() != before
    assert caption(folder, file, format=kind) == (0, 7, 1)


def test_an_image_that_is_turned_by_its_metadata_is_another_one(folder: Path, tmp_path: Path) -> None:
    path, file = folder / f"{6:012}.jpg", tmp_path / "captions.jsonl"
    Image.linear_gradient("L").convert("RGB").save(path, "JPEG")
    caption(folder, file)
    subprocess.run(["exiftool", "-q", "-overwrite_original", "-n", "-Orientation=6", path], check=True)
    assert caption(folder, file) == (1, 6, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_stopped_between_its_store_and_its_output_goes_on(folder: Path, tmp_path: Path, kind: str) -> None:
    """The store is ahead of the file by a batch, or the file was replaced and that was not noted any more."""
    file, whole = tmp_path / "captions", tmp_path / "whole"
    caption(folder, whole, format=kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "SECONDS_TOGETHER", 0.0)
        patch.setattr(output._OutputFile, "_append", kill_at_call(3, output._OutputFile._append))
        patch.setattr(output._OutputFile, "_export", killed)
        for _ in range(3):  # and stops again before the file is made good
            with pytest.raises(KilledError):
                caption(folder, file, format=kind)
            patch.setattr(output._OutputFile, "_export", killed)
    captioned, _, _ = caption(folder, file, format=kind)
    assert captioned < 7 or kind == "csv"
    assert file.read_bytes() == whole.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        note = Store.note
        patch.setattr(
            Store, "note", lambda self, **state: killed() if state.get("stale") is False else note(self, **state)
        )
        save(folder / f"{0:012}.jpg", 7)
        with pytest.raises(KilledError):
            caption(folder, file, format=kind)
    assert file.read_bytes() != whole.read_bytes()  # it has been replaced
    assert caption(folder, file, format=kind) == (0, 7, 1)
    caption(folder, whole, format=kind, overwrite=True)
    assert file.read_bytes() == whole.read_bytes()


class KilledError(BaseException):
    """Stands in for ``kill -9`` at a place of its own."""


def killed(*_: object) -> None:
    raise KilledError


def kill_at_call(number: int, method: Any) -> Any:
    calls = 0

    def call(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return killed() if calls >= number else method(*arguments)

    return call


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_of_an_earlier_release_is_taken_over(folder: Path, tmp_path: Path, kind: str) -> None:
    file, whole = tmp_path / "captions", tmp_path / "whole"
    caption(folder, whole, format=kind)
    late = (folder / f"{1:012}.jpg").rename(tmp_path / "late.jpg")
    caption(folder, file, format=kind)
    make_older(store_of(file))
    fakes.SEEN.clear()
    assert caption(folder, file, format=kind) == (0, 6, 1)
    assert fakes.SEEN == []
    late.rename(folder / f"{1:012}.jpg")
    assert caption(folder, file, format=kind) == (1, 6, 1)
    assert file.read_bytes() == whole.read_bytes()
    make_older(store_of(file))
    file.write_bytes(file.read_bytes().replace(b"colour", b"Colour", 1))
    with pytest.raises(OutputError, match="was changed by another program"):
        caption(folder, file, format=kind)


def make_older(path: Path) -> None:
    """Bring a store into the layout of earlier releases."""
    db = sqlite3.connect(path)
    db.executescript(
        """PRAGMA user_version = 0;
        CREATE TABLE entries (image BLOB PRIMARY KEY, place INTEGER, size INTEGER, modified INTEGER, digest BLOB,
                              image_id INTEGER, captions TEXT, error TEXT, thumbnail BLOB);
        CREATE INDEX by_place ON entries (place);
        CREATE INDEX by_digest ON entries (digest) WHERE captions IS NOT NULL;
        INSERT INTO entries SELECT name, place, size, modified, digest, image_id, captions, error, thumbnail
            FROM records JOIN images USING (place);
        DELETE FROM state WHERE name NOT IN ('settings', 'stale');
        INSERT INTO state SELECT 'finished', max(place) FROM entries;
        DROP TABLE images; DROP TABLE records;"""
    )
    db.close()


def test_a_store_of_a_later_release_is_one_line(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    caption(folder, file)
    with sqlite3.connect(store_of(file)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(
        OutputError, match=r"captions.jsonl.journal: was written by a newer captioner; use that one, or"
    ):
        caption(folder, file)
    assert caption(folder, file, overwrite=True) == (7, 0, 1)


def test_captioning_begins_before_everything_is_listed_and_goes_on_before_that(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_LISTED_TOGETHER", 2)
    monkeypatch.setattr(run, "_SECONDS_LISTING", 0.0)
    listed: list[str] = []
    seen_when_listed: list[int] = []
    find_images = find.find_images

    def slowly(*arguments: Any, **options: Any) -> Any:
        for path in find_images(*arguments, **options):
            listed.append(path.name)
            seen_when_listed.append(len(fakes.SEEN))
            yield path

    monkeypatch.setattr(find, "find_images", slowly)
    file = tmp_path / "captions.jsonl"
    many = tmp_path / "many"
    for number in range(80):
        fakes.save_colour(many / f"{number}.png", number)
    assert caption(many, file) == (80, 0, 0)
    assert seen_when_listed[-1] > 20
    whole = file.read_bytes()

    with sqlite3.connect(store_of(file)) as db:  # as if it had been killed near its end
        db.execute("DELETE FROM records WHERE place > 20")
        db.execute("UPDATE state SET value = 'true' WHERE name = 'stale'")
    (many / "75.png").unlink()
    fakes.SEEN.clear()
    seen_when_listed.clear()
    assert caption(many, file) == (59, 20, 0)
    assert seen_when_listed[10] > 20  # of those that come later in the list
    lines = [line for line in whole.splitlines(True) if b"75.png" not in line]
    assert file.read_bytes() == b"".join(lines)


@pytest.mark.parametrize("listed_together", [1, 512])
def test_what_is_named_and_not_there_fails_in_every_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed_together: int
) -> None:
    monkeypatch.setattr(run, "_LISTED_TOGETHER", listed_together)
    names = tmp_path / "names"
    (folder / "link.jpg").symlink_to("nowhere.jpg")
    names.write_text("".join(f"{folder / name}\n" for name in ("first.jpg", "link.jpg", "", "../last.jpg")))
    file = tmp_path / "captions.jsonl"
    options = FolderOptions(output=str(file), from_file=str(names), workers=0, batch_size=2)

    def caption_list() -> tuple[int, int, int]:
        summary = caption_folder([], options, fakes.colour_model(), Progress())
        return summary.captioned, summary.skipped, summary.failed

    assert caption_list() == (7, 0, 4)
    whole = file.read_bytes()
    assert caption_list() == (0, 7, 4)
    with sqlite3.connect(store_of(file)) as db:  # as if it had been killed before it came to any
        db.execute("DELETE FROM records")
    file.unlink()
    assert caption_list() == (7, 0, 4)
    assert file.read_bytes() == whole


def test_a_folder_that_could_not_be_read_leaves_no_trace(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folder / "sub" / "9.jpg", 9)
    scan, file = os.scandir, tmp_path / "captions.jsonl"

    def refuse(path: Path) -> Any:
        if path.name == "sub":
            raise PermissionError
        return scan(path)

    with monkeypatch.context() as closed:
        closed.setattr(os, "scandir", refuse)
        assert caption(folder, file) == (7, 0, 2)
    assert caption(folder, file) == (1, 7, 1)
    caption(folder, tmp_path / "whole.jsonl")
    assert file.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_over_everything_goes_on_with_merged_shards(folder: Path, tmp_path: Path, kind: str) -> None:
    parts = [tmp_path / f"part-{number}" for number in (1, 2, 3)]
    for number, part in enumerate(parts, 1):
        caption(folder, part, format=kind, shard=f"{number}/3")
    file = tmp_path / "merged"
    assert merge([str(part) for part in parts], str(file))
    before, modified = file.read_bytes(), file.stat().st_mtime_ns
    fakes.SEEN.clear()
    assert caption(folder, file, format=kind) == (0, 7, 1)
    assert (file.stat().st_mtime_ns, file.read_bytes(), fakes.SEEN) == (modified, before, [])
    save(folder / f"{9:012}.jpg", 8)
    assert caption(folder, file, format=kind) == (1, 7, 1)
    caption(folder, tmp_path / "whole", format=kind)
    assert file.read_bytes() == (tmp_path / "whole").read_bytes()
    with closing(sqlite3.connect(store_of(file))) as db:  # without it, each new image would be compared with all
        assert ("by_pixels",) in db.execute("SELECT name FROM sqlite_master").fetchall()


def test_shards_that_were_corrected_by_hand_are_merged_as_they_are(folder: Path, tmp_path: Path) -> None:
    parts = [tmp_path / f"part-{number}.jsonl" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        caption(folder, part, shard=f"{number}/2")
    parts[0].write_text(parts[0].read_text().replace("colour", "corrected"))
    assert merge([str(part) for part in parts], str(tmp_path / "merged.jsonl"))
    assert "corrected" in (tmp_path / "merged.jsonl").read_text()
    assert not store_of(tmp_path / "merged.jsonl").exists()


def test_shards_that_share_an_image_are_refused(folder: Path, tmp_path: Path) -> None:
    parts = [tmp_path / f"part-{number}.jsonl" for number in (1, 2)]
    caption(folder, parts[0], shard="1/2")
    (folder / f"{7:012}.jpg").rename(folder / "0.jpg")  # now it is the first, and others move on
    caption(folder, parts[1], shard="2/2")
    with pytest.raises(OutputError, match=r"part-2.jsonl: holds images that another shard holds, too; their lists"):
        merge([str(part) for part in parts], str(tmp_path / "merged.jsonl"))
    assert sorted(path.name for path in tmp_path.iterdir() if "merged" in path.name or "captioner" in path.name) == []


def test_a_folder_of_many_names_has_the_order_of_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("img10.jpg", "img2.jpg", "IMG1.jpg", "é.jpg", "b.jpg", "img2b.jpg", "img.jpg", "img02.jpg", "-.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.jpg").touch()
    expected = list(find.find_images([tmp_path]))
    monkeypatch.setattr(find, "_MOST_IN_MEMORY", 3)
    assert list(find.find_images([tmp_path])) == expected


def test_the_names_in_a_tar_take_no_memory(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for number in range(20_000):
            tar.addfile(tarfile.TarInfo(f"{number:06}-{'x' * 60}.jpg"))
    tracemalloc.start()
    try:
        assert sum(1 for _ in Tars([str(tmp_path / "t.tar")])) == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_run_that_cannot_begin_leaves_no_store(folder: Path, tmp_path: Path) -> None:
    def fail() -> None:
        raise OutputError("no model")

    model = fakes.colour_model()
    broken = type(model)(model.settings, model.decoding, fail)  # type: ignore[arg-type]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="no model"):
        caption_folder([str(folder)], FolderOptions(output=str(tmp_path / "a.jsonl")), broken)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_moves_with_its_output(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    caption(folder, file)
    (tmp_path / "elsewhere").mkdir()
    for path in (file, store_of(file)):
        shutil.copy(path, tmp_path / "elsewhere")  # with another date
    os.utime(tmp_path / "elsewhere" / file.name, (1, 1))
    assert caption(folder, tmp_path / "elsewhere" / file.name) == (0, 7, 1)
    assert len(list(map(json.loads, file.read_text().splitlines()))) == 8
    assert store.store_of(file).stat().st_size > 0
