"""Two builds of captioner side by side: the one of this repository, and an earlier one from its history.

Both are run by the interpreter that runs the script, so it must have the dependencies of both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OLD = "6f8a342"  # the last build in which torch wrote all captions
REPOSITORY = Path(__file__).resolve().parents[1]
_BETWEEN_SAMPLES = 0.02  # seconds


@dataclass(frozen=True)
class Run:
    """One process that has ended: how long it took, and the most memory that it held."""

    seconds: float
    megabytes: float


@dataclass(frozen=True)
class Build:
    """A checkout of captioner."""

    name: str
    place: Path

    def start(self, *arguments: str | Path, **streams: Any) -> subprocess.Popen[str]:
        """Start ``python ARGUMENTS`` with this build's captioner, on all processors."""
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        environment["PYTHONPATH"] = str(self.place)
        # In its own folder, because Python looks for modules in the current one first.
        command = [sys.executable, *map(str, arguments)]
        return subprocess.Popen(command, cwd=self.place, env=environment, text=True, **streams)

    def run(self, *arguments: str | Path) -> Run:
        """Run ``captioner ARGUMENTS`` to its end; its output is thrown away."""
        start = time.perf_counter()
        process = self.start("-m", "captioner", *arguments, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        self._check(os.waitstatus_to_exitcode(status), arguments)
        # Linux counts the memory of this script from before the other program started: keep it small.
        return Run(seconds, usage.ru_maxrss / 1000)

    def peak_memory(self, *arguments: str | Path) -> float:
        """Run ``captioner ARGUMENTS``; return the most memory that it and its children held together, in MB."""
        process = self.start("-m", "captioner", *arguments, stdout=subprocess.DEVNULL)
        most = 0.0
        while process.poll() is None:
            most = max(most, resident_memory(process.pid))
            time.sleep(_BETWEEN_SAMPLES)
        self._check(process.returncode, arguments)
        return most

    def read(self, *arguments: str | Path) -> tuple[str, str]:
        """Run ``python ARGUMENTS``; return what it prints, and its messages."""
        process = self.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        printed, messages = process.communicate()
        if process.returncode:
            print(messages, file=sys.stderr)
        self._check(process.returncode, arguments)
        return printed, messages

    def _check(self, code: int, arguments: Sequence[str | Path]) -> None:
        if code:
            sys.exit(f"the {self.name} build ended with exit code {code}: {' '.join(map(str, arguments))}")


def add_old(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--old", default=OLD, help=f"commit or folder of the build to compare with (default: {OLD})")


def add_new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runtime", help="of the new build, such as onnx")
    parser.add_argument("--precision", help="of the new build, such as fp32")


def flags(**values: object) -> list[str]:
    """Those options of a command line that have a value; paths are made absolute, as builds have their own folders."""
    texts = {name: value.resolve() if isinstance(value, Path) else value for name, value in values.items()}
    return [text for name, value in texts.items() if value is not None for text in (f"--{name}", str(value))]


@contextmanager
def both_builds(old: str) -> Iterator[tuple[Build, Build]]:
    """The old build and that of this repository; a commit is unpacked into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(old) if Path(old).is_dir() else check_out(old, Path(folder) / "captioner")
        yield Build("old", place.resolve()), Build("new", REPOSITORY)


def check_out(commit: str, folder: Path) -> Path:
    """Unpack a commit of this repository into a folder."""
    archive = folder.with_suffix(".tar")
    command = ["git", "-C", str(REPOSITORY), "archive", "--output", str(archive), commit]
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"{commit}: neither a folder nor a commit of {REPOSITORY}; name one with --old")
    shutil.unpack_archive(archive, folder)
    archive.unlink()
    return folder


def compare(
    what: str, old: Sequence[float], new: Sequence[float], unit: str, *, digits: int = 1, more: bool = False
) -> None:
    """Print the medians and how many times as good the new one is; ``more`` of it is better, or less."""
    before, after = statistics.median(old), statistics.median(new)
    ratio = f"new / old {after / before:.2f}" if more else f"old / new {before / after:.2f}"
    print(f"{what}: old {before:,.{digits}f}, new {after:,.{digits}f} {unit}, {ratio}", flush=True)


def resident_memory(process: int) -> float:
    """Of a process and all that it started, in MB."""
    parents, pages = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            number = int(stat.parent.name)
            parents[number], pages[number] = int(fields[1]), int(fields[21])
    family = {process}
    while more := {number for number, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(pages.get(number, 0) for number in family) * resource.getpagesize() / 1e6


@dataclass(frozen=True)
class Server:
    """A server that is up: where it is, and its process."""

    address: str
    process: int

    def megabytes(self) -> float:
        """Resident memory, that of its children included."""
        return resident_memory(self.process)


@contextmanager
def running_server(build: Build, *arguments: str | Path) -> Iterator[Server]:
    """``captioner serve`` on a free port, ready."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"  # a pipe that nobody reads would stop the server once it is full
        with log.open("w") as file:
            process = build.start("-m", "captioner", "serve", "--port", "0", *arguments, stderr=file)
        try:
            while (found := re.search(r"http://\S+:\d+", log.read_text())) is None and process.poll() is None:
                time.sleep(0.1)
            if found is None:
                sys.exit(log.read_text())
            while (health := _health(found[0])) == "loading":
                time.sleep(0.1)
            if health != "ready":
                sys.exit(log.read_text())
            yield Server(found[0], process.pid)
        finally:
            process.terminate()
            process.wait()


def _health(address: str) -> str:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=60) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:  # not ready, and says so
        text = error.read()
    return str(json.loads(text)["status"])
