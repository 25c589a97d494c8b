"""``captioner caption --watch``: images that come into a folder get their captions, whole and once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from captioner.bulk.options import FolderOptions
from captioner.embed.folder import caption_folder
from captioner.embed.reading import read_captions
from captioner.errors import CaptionerError, OptionError
from captioner.images import watch
from captioner.images.find import Omitted
from tests.bulk import fakes
from tests.light.installing import light_environment, run

KINDS: dict[str, list[str]] = {
    "jsonl": ["--output", "OUT/captions.jsonl"],
    "csv": ["--output", "OUT/captions.csv"],
    "sidecar": ["--format", "sidecar"],
    "xmp": ["--format", "xmp"],
    "copies": ["--embed", "--output", "OUT"],
    "in place": ["--embed", "--in-place"],
}


class Watched:
    """A process that watches a folder of its own."""

    def __init__(self, folder: Path, kind: str, first: bytes) -> None:
        self.kind, self.images, self.output = kind, folder / "images", folder / "out"
        self.images.mkdir(parents=True)
        self.output.mkdir()
        (self.images / "first.jpg").write_bytes(first)
        self.messages = folder / "messages"
        options = [part.replace("OUT", str(self.output)) for part in KINDS[kind]]
        command = [sys.executable, "-m", "captioner", "caption", "--watch", str(self.images), *options]
        with self.messages.open("w") as file:
            self.process = subprocess.Popen([*command, "--workers", "0", "--progress", "json"], stderr=file)

    def captioned(self) -> set[str]:
        """Names of the images that have a caption."""
        if self.kind in ("jsonl", "csv"):
            file = self.output / f"captions.{self.kind}"
            lines = file.read_text().splitlines() if file.exists() else []
            return {name for name in NAMES if any(name in line and "error" not in line for line in lines)}
        if self.kind in ("sidecar", "xmp"):
            ending = {"sidecar": lambda path: path.with_suffix(".txt"), "xmp": lambda path: Path(f"{path}.xmp")}
            return {name for name in NAMES if ending[self.kind](self.images / name).exists()}
        place = self.images if self.kind == "in place" else self.output
        there = [name for name in NAMES if (place / name).exists()]
        return {name for name in there if any("AltText" in field.name for field in read_captions(place / name)[0])}

    def passes(self) -> int:
        """How often it has looked whether there is something to do."""
        return sum('"total"' in line and '"total": null' not in line for line in self.messages.open())


NAMES = ("first.jpg", "slow.jpg", "renamed.jpg", "moved/in.jpg")


@pytest.fixture(scope="module")
def photo(images: list[Path]) -> bytes:
    return next(path for path in images if path.name == "coffee.jpg").read_bytes()


@pytest.fixture
def watched(tmp_path: Path, photo: bytes) -> Iterator[list[Watched]]:
    """A process for each kind of output."""
    all_of_them = [Watched(tmp_path / kind, kind, photo) for kind in KINDS]
    yield all_of_them
    for each in all_of_them:
        each.process.kill()
        each.process.wait()


def wait_until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    end = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.05)


@pytest.mark.slow
def test_what_comes_is_captioned_whole_and_once_in_every_format(watched: list[Watched], photo: bytes) -> None:
    wait_until(lambda: all(each.captioned() == {"first.jpg"} for each in watched), lambda: None)
    for each in watched:
        (each.images / "slow.jpg").write_bytes(photo[:10_000])
        (each.images.parent / "aside").mkdir()
        (each.images.parent / "aside" / "in.jpg").write_bytes(photo[:-2] + b"\0\xff\xd9")
        (each.images.parent / "aside").rename(each.images / "moved")
        part = each.images / "renamed.jpg.part"
        part.write_bytes(photo[:-2] + b"\0\0\xff\xd9")
        part.rename(each.images / "renamed.jpg")
    for more in (photo[10_000:20_000], photo[20_000:]):  # a program that takes its time
        time.sleep(1.2)
        for each in watched:
            with (each.images / "slow.jpg").open("ab") as file:
                file.write(more)
    wait_until(
        lambda: all(each.captioned() == set(NAMES) for each in watched),
        lambda: [(each.kind, each.captioned(), each.messages.read_text()) for each in watched],
    )
    assert all((each.images / "slow.jpg").read_bytes() == photo for each in watched if each.kind != "in place")
    time.sleep(2.8)  # what it has written itself is looked at once
    before = [each.passes() for each in watched]
    time.sleep(2.8)
    assert [each.passes() for each in watched] == before
    for each in watched:
        each.process.send_signal(signal.SIGINT)
    for each in watched:
        messages = each.messages
        assert each.process.wait(30) == 0, messages.read_text()
        said = [record["message"] for line in messages.open() if "message" in (record := json.loads(line))]
        assert said[-1].startswith("4 captioned, 0 skipped, 0 failed"), said
        assert "slow.jpg" not in str(said)
        assert any(line.startswith("waiting for new images") for line in said)


def ask(arrivals: Iterator[None], seconds: float) -> bool:
    """Whether there is something within some seconds."""
    timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        next(arrivals)
    except KeyboardInterrupt:
        return False
    else:
        return True
    finally:
        timer.cancel()


def test_captions_deletions_and_what_is_left_out_are_no_arrivals(tmp_path: Path) -> None:
    (tmp_path / "old.jpg").touch()
    arrivals = watch.arrivals([str(tmp_path)], Omitted(), recursive=True)
    assert ask(arrivals, 30)
    (tmp_path / "old.txt").write_text("a caption")
    (tmp_path / "old.jpg").unlink()
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails" / "a.jpg").touch()
    assert not ask(arrivals, 3.5)


def test_names_that_are_no_utf8_do_not_end_it(tmp_path: Path) -> None:
    arrivals = watch.arrivals([str(tmp_path)], Omitted())
    assert ask(arrivals, 30)
    (tmp_path / os.fsdecode(b"\xff.jpg")).touch()
    assert ask(arrivals, 30)
    (tmp_path / "a.jpg").touch()
    assert ask(arrivals, 30)
    odd = tmp_path / os.fsdecode(b"\xff")
    odd.mkdir()
    with pytest.raises(CaptionerError, match="cannot watch folders whose paths are no UTF-8; rename them"):
        next(watch.arrivals([str(odd)], Omitted()))


def test_a_folder_that_goes_ends_it_with_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "drive"
    folder.mkdir()
    arrivals = watch.arrivals([str(folder)], Omitted())
    assert ask(arrivals, 30)
    folder.rmdir()
    with pytest.raises(CaptionerError, match=r"drive: has gone; give the same command when it is there again"):
        next(arrivals)


def test_files_rest_two_seconds_after_their_last_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.touch()
    assert not watch.at_rest(path)
    os.utime(path, (1, 1))  # as programs do that copy the date, too
    assert not watch.at_rest(path)
    assert watch.at_rest(tmp_path / "none.jpg")
    changed = path.stat().st_ctime
    for now, rests in ((changed + 1.9, False), (changed + 2.1, True), (changed - 3600, True)):
        monkeypatch.setattr(watch, "time", SimpleNamespace(time=lambda now=now: now))
        assert watch.at_rest(path) is rests


def test_failures_are_said_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, output = tmp_path / "images", tmp_path / "captions.jsonl"
    images.mkdir()

    def arrivals(*_: object, **__: object) -> Iterator[None]:
        yield  # there is nothing yet
        (images / "a.png").write_text("no image")
        fakes.save_colour(images / "b.png", 2)
        yield
        yield
        fakes.save_colour(images / "a.png", 1)
        yield
        (images / "b.png").unlink()
        yield
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "arrivals", arrivals)
    monkeypatch.setattr(watch, "at_rest", lambda path: True)
    monkeypatch.setattr("captioner.engine.Engine", fakes.ColourEngine)
    options = FolderOptions(watch=True, output=str(output), workers=0)
    summary = caption_folder([str(images)], options, fakes.colour_model())
    assert (summary.captioned, summary.skipped, summary.failed) == (2, 0, 0)
    assert capsys.readouterr().err.count("not an image") == 1
    names = [Path(json.loads(line)["image"]).name for line in output.read_text().splitlines()]
    assert names == ["a.png", "b.png"]


def test_images_that_are_being_written_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, output = tmp_path / "images", tmp_path / "captions.jsonl"
    for number in range(3):
        fakes.save_colour(images / f"{number}.png", number)
    monkeypatch.setattr(watch, "arrivals", lambda *_, **__: iter([None]))
    monkeypatch.setattr(watch, "at_rest", lambda path: path.name != "1.png")
    monkeypatch.setattr("captioner.engine.Engine", fakes.ColourEngine)
    options = FolderOptions(watch=True, output=str(output), workers=0)
    assert caption_folder([str(images)], options, fakes.colour_model()).captioned == 2
    assert [Path(json.loads(line)["image"]).name for line in output.read_text().splitlines()] == ["0.png", "2.png"]


def test_only_folders_can_be_watched(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    options = FolderOptions(watch=True, format="sidecar")
    for paths in ([], [str(tmp_path / "a.png")], [str(tmp_path), str(tmp_path / "none")]):
        with pytest.raises(OptionError, match="`watch` takes folders"):
            caption_folder(paths, options, fakes.colour_model())


def test_without_watchfiles_it_says_what_to_install(tmp_path: Path) -> None:
    command = ["-m", "captioner", "caption", "--watch", tmp_path, "--format", "sidecar"]
    done = run(*command, environment=light_environment())
    expected = "captioner: error: --watch needs watchfiles: pip install 'captioner[watch]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
