from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from captioner.interrupt import on_interrupt


@pytest.fixture(autouse=True)
def _as_at_a_terminal() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_interrupt_is_noted_and_the_second_breaks_off(capfd: pytest.CaptureFixture[str]) -> None:
    noted: list[int] = []
    with on_interrupt(lambda: noted.append(1), notice=b"one moment\n"):
        signal.raise_signal(signal.SIGINT)
        assert noted == [1]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert noted == [1]
    assert capfd.readouterr().err == "one moment\n"


def test_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with on_interrupt(lambda: None):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_it_can_be_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with on_interrupt(lambda: None, quiet=True):
        signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err == ""


def test_it_is_noted_also_where_nobody_reads_the_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_descriptor: int, _data: bytes) -> int:  # as with `2>&1 | tee log`, since Ctrl-C ends tee, too
        raise BrokenPipeError

    noted: list[int] = []
    monkeypatch.setattr("os.write", gone)
    with on_interrupt(lambda: noted.append(1)):
        signal.raise_signal(signal.SIGINT)
    assert noted == [1]


def test_outside_the_main_thread_it_does_nothing() -> None:
    def work() -> bool:
        with on_interrupt(lambda: None):
            return True

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result()
