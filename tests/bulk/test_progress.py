from __future__ import annotations

from types import SimpleNamespace

import pytest

from captioner.bulk import run
from captioner.bulk.run import Progress, Summary, _duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as the only entry of a list."""
    now = [100.0]
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: now[0]))  # its own alone
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
