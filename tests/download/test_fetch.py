from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest

from captioner.download.fetch import Patience, fetch
from captioner.errors import DatasetError
from tests.download.server import FileServer, Manner

CONTENT = random.Random(0).randbytes(700_000)
QUICK = Patience(timeout=0.3, attempts=3, pause=0.0)


class _Fetching:
    """One file on the server and what a fetch of it reports."""

    def __init__(self, server: FileServer, folder: Path) -> None:
        self.target = folder / "photos.zip"
        self.seen: list[int] = []
        self._server = server
        server.files["photos.zip"] = CONTENT

    def run(self, size: int = len(CONTENT)) -> None:
        fetch(self._server.address("photos.zip"), self.target, size, QUICK, self._note)

    def _note(self, label: str, done: int, total: int) -> None:
        assert (label, total) == ("fetching photos.zip", len(CONTENT))
        self.seen.append(done)


@pytest.fixture
def fetching(server: FileServer, tmp_path: Path) -> _Fetching:
    return _Fetching(server, tmp_path)


def test_a_whole_file_in_one_request(server: FileServer, fetching: _Fetching) -> None:
    fetching.run()
    assert fetching.target.read_bytes() == CONTENT
    assert list(fetching.target.parent.iterdir()) == [fetching.target]
    assert fetching.seen == sorted(fetching.seen)
    assert fetching.seen[-1] == len(CONTENT)
    assert server.header("Range") == [None]


def test_a_file_that_is_whole_already_is_not_asked_for(server: FileServer, fetching: _Fetching) -> None:
    fetching.target.write_bytes(CONTENT)
    fetching.run()
    assert server.requests == []


def test_dropped_connections_are_resumed_where_they_broke(server: FileServer, fetching: _Fetching) -> None:
    server.manners = [Manner(send=100_000), Manner(send=0), Manner(send=250_000), Manner(send=1)]
    fetching.run()
    assert fetching.target.read_bytes() == CONTENT
    assert server.header("Range") == [None, *(f"bytes={n}-" for n in (100_000, 100_000, 350_000, 350_001))]
    assert server.header("If-Range") == [None, *['"one"'] * 4]


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(server: FileServer, fetching: _Fetching) -> None:
    server.manners = [Manner(send=100_000), *[Manner(status=503)] * 3]
    with pytest.raises(DatasetError, match=r"gave up after 3 attempts \(the server answers 503 .*0\.1 MB of"):
        fetching.run()
    assert fetching.target.stat().st_size == 100_000
    server.requests.clear()
    fetching.run()
    assert fetching.target.read_bytes() == CONTENT
    assert server.header("Range") == ["bytes=100000-"]


def test_a_server_without_ranges_starts_over(server: FileServer, fetching: _Fetching) -> None:
    server.usual = Manner(ranges=False)
    server.manners = [Manner(send=100_000), Manner(ranges=False, send=50_000)]
    fetching.run()
    assert fetching.target.read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_a_server_without_ranges_that_always_drops_is_given_up(server: FileServer, fetching: _Fetching) -> None:
    server.usual = Manner(ranges=False, send=100_000)
    with pytest.raises(DatasetError, match="gave up after 3 attempts"):
        fetching.run()
    assert len(server.requests) == 4


def test_a_stalled_connection_is_cut_and_resumed_with_nothing_lost(server: FileServer, fetching: _Fetching) -> None:
    server.manners = [Manner(send=123_456, stall=True), Manner(send=0, stall=True)]
    fetching.run()
    assert fetching.target.read_bytes() == CONTENT
    assert server.header("Range") == [None, "bytes=123456-", "bytes=123456-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: FileServer, fetching: _Fetching) -> None:
    server.manners = [Manner(send=100_000), *[Manner(status=503)] * 3]
    with pytest.raises(DatasetError):
        fetching.run()
    other = bytes(reversed(CONTENT))
    server.files["photos.zip"], server.validator = other, ("ETag", '"two"')
    fetching.run()
    assert fetching.target.read_bytes() == other


@pytest.mark.parametrize(
    ("validator", "expected"),
    [
        (("Last-Modified", "Tue, 10 Jul 2018 00:00:00 GMT"), "Tue, 10 Jul 2018 00:00:00 GMT"),
        (("ETag", 'W/"weak"'), None),
        (("X-Nothing", "x"), None),
    ],
)
def test_only_strong_validators_are_sent_back(
    server: FileServer, fetching: _Fetching, validator: tuple[str, str], expected: str | None
) -> None:
    server.validator = validator
    server.manners = [Manner(send=100_000)]
    fetching.run()
    assert fetching.target.read_bytes() == CONTENT
    assert server.header("If-Range") == [None, expected]


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_a_refusal_is_reported_at_once(server: FileServer, fetching: _Fetching, status: int) -> None:
    server.usual = Manner(status=status)
    with pytest.raises(DatasetError, match=rf"photos\.zip: the server answers {status} .*may have moved"):
        fetching.run()
    assert len(server.requests) == 1


def test_passing_trouble_is_survived(server: FileServer, fetching: _Fetching) -> None:
    server.manners = [Manner(status=503), Manner(status=429)]
    fetching.run()
    assert fetching.target.read_bytes() == CONTENT


def test_nobody_listening_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/a.zip"
    with pytest.raises(DatasetError, match=r"gave up after 3 attempts .*refused"):
        fetch(address, tmp_path / "a.zip", 5, QUICK, lambda *_: None)


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_another_size_than_expected_is_refused_before_it_is_fetched(
    server: FileServer, fetching: _Fetching, size: int
) -> None:
    with pytest.raises(DatasetError, match=rf"offers 700,000 bytes where {size:,} are expected"):
        fetching.run(size)
    assert not fetching.target.exists()
    assert len(server.requests) == 1


def test_another_size_is_noticed_when_resuming(server: FileServer, fetching: _Fetching) -> None:
    server.manners = [Manner(send=100_000), *[Manner(status=503)] * 3]
    with pytest.raises(DatasetError):
        fetching.run()
    server.files["photos.zip"] = CONTENT + b"x"
    with pytest.raises(DatasetError, match="offers 700,001 bytes"):
        fetching.run()


def test_a_server_that_names_no_size_but_sends_too_much(server: FileServer, fetching: _Fetching) -> None:
    server.files["photos.zip"] = CONTENT + b"x" * 300_000
    server.usual = Manner(length=0)
    with pytest.raises(DatasetError, match="sends more than the 700,000 bytes expected"):
        fetching.run()
    assert fetching.target.stat().st_size == 0


def test_a_server_that_names_no_size_is_fine(server: FileServer, fetching: _Fetching) -> None:
    server.manners = [Manner(length=0, send=1000), Manner(length=0)]
    fetching.run()
    assert fetching.target.read_bytes() == CONTENT


def test_another_range_than_asked_for_is_refused(server: FileServer, fetching: _Fetching) -> None:
    server.manners = [Manner(send=100_000), Manner(shift=7)]
    with pytest.raises(DatasetError, match="another part of the file"):
        fetching.run()


def test_a_partial_file_that_the_server_cannot_go_on_from_is_dropped(server: FileServer, fetching: _Fetching) -> None:
    fetching.target.write_bytes(b"x" * 100)
    server.manners = [Manner(status=416)]
    fetching.run()
    assert fetching.target.read_bytes() == CONTENT


def test_a_file_that_is_too_long_is_dropped(server: FileServer, fetching: _Fetching) -> None:
    fetching.target.write_bytes(CONTENT + b"x")
    fetching.run()
    assert fetching.target.read_bytes() == CONTENT
    assert server.header("Range") == [None]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
def test_a_full_disk_is_one_clear_line(fetching: _Fetching) -> None:
    fetching.target.symlink_to("/dev/full")
    with pytest.raises(DatasetError, match=r"photos\.zip: the disk is full; make room"):
        fetching.run()


def test_a_folder_that_cannot_be_written_is_one_clear_line(server: FileServer, tmp_path: Path) -> None:
    server.files["a.zip"] = b"12345"
    with pytest.raises(DatasetError, match=r"a\.zip: cannot be written"):
        fetch(server.address("a.zip"), tmp_path / "absent" / "a.zip", 5, QUICK, lambda *_: None)
