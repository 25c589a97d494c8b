"""Fetching one large file over HTTP: resumes, retries, and never takes a wrong file for the right one."""

import errno
import re
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from captioner.errors import DatasetError

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many bytes are done and how many there are."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_BLOCK = 1 << 18  # bytes read at once
_LONGEST_PAUSE = 30.0  # seconds
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416
_WORTH_RETRYING = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """How long to wait for a connection, and how often to try again.

    Attributes:
        timeout: seconds without a single byte after which a connection counts as dead.
        attempts: failed attempts in a row, none of which got further than before, after which to give up.
        pause: seconds before the second attempt; doubles from one attempt to the next.
    """

    timeout: float = 30.0
    attempts: int = 6
    pause: float = 1.0


class _ConnectionLostError(Exception):
    """The connection failed in a way that may pass."""


def fetch(address: str, target: Path, size: int, patience: Patience, progress: Progress) -> None:
    """Fetch ``address`` into ``target``, going on from what an earlier call left there.

    Args:
        address: an http or https address.
        target: the file to make, in a folder that exists; it is whole when it has the right size.
        size: bytes that the file must have.
        patience: when to try again and when to give up.
        progress: called after every block.

    Raises:
        DatasetError: when the server refuses, offers another size, stays out of reach, or the disk is full.
    """
    furthest = failures = 0
    while size_on_disk(target) != size:
        lost = _attempt(address, target, size, patience.timeout, progress)
        if not lost:
            break
        reached = size_on_disk(target)
        failures = 0 if reached > furthest else failures + 1
        furthest = max(furthest, reached)
        if failures >= patience.attempts:
            raise DatasetError(
                f"{address}: gave up after {failures} attempts ({lost})",
                f"{readable_size(reached)} of {readable_size(size)} are here, give the same command again to go on",
            )
        time.sleep(min(patience.pause * 2**failures, _LONGEST_PAUSE))
    with disk_errors(target):
        _tag_file(target).unlink(missing_ok=True)


def size_on_disk(target: Path) -> int:
    """Bytes of a file that are there already; 0 for no file."""
    return target.stat().st_size if target.exists() else 0


def _tag_file(target: Path) -> Path:
    """The file that holds which version of the target was begun."""
    return target.with_name(target.name + ".tag")


def _attempt(address: str, target: Path, size: int, timeout: float, progress: Progress) -> str:
    """Use one connection, going on from a partial file if the server can; why it was lost, if the file is not whole."""
    try:
        with disk_errors(target):
            if size_on_disk(target) > size:
                target.unlink()
            start = size_on_disk(target)
            with _connect(address, target, start, timeout) as response:
                resumed = response.status == _PARTIAL_CONTENT
                _check_offer(response, address, start, size)
                with target.open("ab" if resumed else "wb", buffering=0) as file:
                    if not resumed:
                        # What names this version: a strong ETag, else the date (RFC 9110, section 13.1.5).
                        tag = response.headers.get("ETag", "")
                        version = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
                        _tag_file(target).write_text(version, encoding="utf-8")
                    _copy(response, file, address, size, progress)
            return "" if size_on_disk(target) == size else "the server closed the connection early"
    except _ConnectionLostError as reason:
        return str(reason)


def _connect(address: str, target: Path, start: int, timeout: float) -> HTTPResponse:
    headers = {"User-Agent": "captioner", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        tag = _tag_file(target).read_text(encoding="utf-8") if _tag_file(target).exists() else ""
        if tag:
            # With this the server sends the whole file where it is no longer the one begun.
            headers["If-Range"] = tag
    try:
        request = urllib.request.Request(address, headers=headers)
        response: HTTPResponse = urllib.request.urlopen(request, timeout=timeout)
    except urllib.request.HTTPError as error:
        error.close()
        if error.code == _RANGE_NOT_SATISFIABLE:
            target.unlink(missing_ok=True)
            raise _ConnectionLostError("the server refused to go on") from error
        answer = f"the server answers {error.code} {error.reason}"
        if error.code in _WORTH_RETRYING:
            raise _ConnectionLostError(answer) from error
        raise DatasetError(f"{address}: {answer}", "the file may have moved") from error
    except (OSError, HTTPException) as error:
        raise _ConnectionLostError(str(getattr(error, "reason", error)) or type(error).__name__) from error
    return response


def _check_offer(response: HTTPResponse, address: str, start: int, size: int) -> None:
    """Compare what the server is about to send with what is expected."""
    if response.status == _PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != start:
            raise DatasetError(f"{address}: the server sends another part of the file than was asked for")
        offered = found[2]
    else:
        offered = response.headers.get("Content-Length", "*")
    if offered.isdecimal() and int(offered) != size:
        raise DatasetError(
            f"{address}: the server offers {int(offered):,} bytes where {size:,} are expected",
            "the file has changed, or a proxy answers in its place",
        )


def _copy(response: HTTPResponse, file: BinaryIO, address: str, size: int, progress: Progress) -> None:
    name = address.rpartition("/")[2]
    done = file.seek(0, 2)
    for block in _blocks(response):
        done += len(block)
        if done > size:
            file.truncate(0)
            raise DatasetError(f"{address}: the server sends more than the {size:,} bytes expected")
        rest = memoryview(block)
        while rest:  # An unbuffered file may take only a part of what it is given.
            rest = rest[file.write(rest) :]
        progress(f"fetching {name}", done, size)


def _blocks(response: HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            # Returns what has arrived, so that a stall later on loses nothing.
            block = response.read1(_BLOCK)
        except (OSError, HTTPException) as error:
            raise _ConnectionLostError(str(error) or type(error).__name__) from error
        if not block:
            return
        yield block


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn a failed write below ``place`` into one clear line.

    Raises:
        DatasetError: for a full disk, missing permission and every other ``OSError``.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DatasetError(f"{place}: the disk is full", "make room and give the same command again") from error
        raise DatasetError(f"{place}: cannot be written ({error.strerror or error})") from error


def free_space(folder: Path) -> int:
    """Bytes free where ``folder`` lies or will lie."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    with disk_errors(existing):
        return shutil.disk_usage(existing).free


def readable_size(size: int) -> str:
    """A size in decimal gigabytes, that of a small file in megabytes."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
