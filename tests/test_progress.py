from __future__ import annotations

import errno
import json
from types import SimpleNamespace

import pytest

from captioner import progress
from captioner.bulk.run import Summary
from captioner.progress import Progress, _duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as the only entry of a list."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))  # its own alone
    return now


def test_a_line_now_and_then(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("lines", summary=True) as reporter:
        reporter.start(10_000)
        for _ in range(100):
            clock[0] += 1
            reporter.advance(16)
        reporter.summarise(Summary(1590, 2, 10, 8400, seconds=reporter.seconds))
    assert capsys.readouterr() == (
        "",
        "captioner: 480 of 10,000 images, 16.0 images/s, 10 min left\n"
        "captioner: 960 of 10,000 images, 16.0 images/s, 9 min left\n"
        "captioner: 1,440 of 10,000 images, 16.0 images/s, 9 min left\n"
        "captioner: 1,590 captioned, 2 skipped, 10 failed, 8,400 remaining, 16.0 images/s\n",
    )


def test_nothing_but_failures_when_quiet(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as reporter:
        reporter.start(100)
        clock[0] += 1000
        reporter.advance(50)
        reporter.say("photo.jpg: no such file")
        reporter.summarise(Summary(49, 0, 1))
    assert capsys.readouterr() == ("", "captioner: photo.jpg: no such file\n")


def test_a_bar_gives_way_to_lines_and_goes(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("bar", summary=True) as reporter:
        reporter.start(100)
        reporter.advance(50)
        reporter.say("photo.jpg: no such file")
        reporter.summarise(Summary(49, 0, 1))
    err = capsys.readouterr().err
    assert "50/100" in err
    assert "captioner: photo.jpg: no such file\n" in err
    assert err.endswith("captioner: 49 captioned, 0 skipped, 1 failed\n")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (7100, "118 min"), (7300, "2.0 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


def test_options_are_shown_as_flags(capsys: pytest.CaptureFixture[str]) -> None:
    Progress().say("a.jpg: has too many pixels; raise `max_pixels`")
    assert capsys.readouterr().err == "captioner: a.jpg: has too many pixels; raise --max-pixels\n"


def test_failures_are_counted_in_lines_and_on_the_bar(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("lines") as reporter:
        reporter.start(100)
        clock[0] += 30
        reporter.advance(30, failed=2)
    assert capsys.readouterr().err == "captioner: 30 of 100 images, 1.0 images/s, 70 s left, 2 failed\n"
    with Progress("bar") as reporter:
        reporter.start(100)
        reporter.advance(50, failed=1)
        reporter.say("photo.jpg: no such file")
        assert ", 1 failed]" in capsys.readouterr().err


def test_json_is_an_object_a_line_at_most_every_second(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("json", summary=True) as reporter:
        clock[0] += 5  # listing
        reporter.start(100, skipped=7)
        for _ in range(4):
            clock[0] += 0.5
            reporter.advance(10)
        reporter.say("photo.jpg: no such file")
        clock[0] += 1
        reporter.advance(10, failed=1)
        reporter.summarise(Summary(49, 7, 1, 50))
    out, err = capsys.readouterr()
    start = {"failed": 0, "skipped": 7, "images_per_second": None, "seconds_left": None}
    assert out == ""
    assert list(map(json.loads, err.splitlines())) == [
        {"done": 0, "total": None} | start | {"skipped": 0},
        {"done": 0, "total": 100} | start,
        {"done": 20, "total": 100} | start | {"images_per_second": 20.0, "seconds_left": 4.0},
        {"done": 40, "total": 100} | start | {"images_per_second": 20.0, "seconds_left": 3.0},
        {"message": "photo.jpg: no such file"},
        {"done": 50, "total": 100, "failed": 1, "skipped": 7, "images_per_second": 16.67, "seconds_left": 3.0},
        {"done": 50, "total": 100, "failed": 1, "skipped": 7, "images_per_second": 16.67, "seconds_left": 3.0},
        {"message": "49 captioned, 7 skipped, 1 failed, 50 remaining"},
    ]


def test_the_total_may_become_known_later(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("lines") as reporter:
        reporter.start(None)
        clock[0] += 30
        reporter.advance(30)
        reporter.expect(120)
        clock[0] += 30
        reporter.advance(30)
    assert capsys.readouterr().err == (
        "captioner: 30 images, 1.0 images/s\ncaptioner: 60 of 120 images, 1.0 images/s, 60 s left\n"
    )


@pytest.mark.parametrize("show", ["bar", "lines", "json"])
def test_a_terminal_that_has_gone_ends_nothing(
    clock: list[float], show: progress.Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sys.stderr", SimpleNamespace(write=write, flush=lambda: None, encoding="utf-8"))
    with Progress(show, summary=True) as shown:
        shown.start(2)
        clock[0] += 31
        shown.advance(1, 1)
        shown.say("a.jpg: no such file")
        shown.summarise(Summary(1, 0, 1))
