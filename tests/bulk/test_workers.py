"""Images are read in processes of their own, which may die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from captioner.errors import CaptionerError
from captioner.images.reading import ImageReader, Loaded, Readers
from tests.bulk.folders import make_folder, save_image
from tests.bulk.hostile import Hostile
from tests.small_model import small_preprocessing


@pytest.fixture
def reader() -> ImageReader:
    return ImageReader(small_preprocessing(), 10_000)


def children() -> set[int]:
    """Processes that this one has started and that are still there."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return {int(pid) for pid in found.stdout.split() if Path(f"/proc/{pid}").exists()}


def same(one: Loaded, other: Loaded) -> bool:
    return (one.identity, one.error, one.pixels is None or one.pixels.tobytes()) == (
        other.identity,
        other.error,
        other.pixels is None or (other.pixels is not None and other.pixels.tobytes()),
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_read_what_a_thread_reads_and_in_order(reader: ImageReader, tmp_path: Path, workers: int) -> None:
    folder = make_folder(tmp_path / "pictures", 9, broken=(2, 8))
    paths = [*sorted(folder.iterdir()), folder / os.fsdecode(b"\xff\n.png"), folder]
    with Readers(reader, 0) as readers:
        expected = list(readers.read(paths, 4))
    with Readers(reader, workers) as readers:
        found = list(readers.read(paths, 4))
    assert [path for path, _ in found] == paths
    assert all(same(one, other) for (_, one), (_, other) in zip(found, expected, strict=True))
    assert [loaded.error is None for _, loaded in found] == [i not in (2, 8, 9, 10) for i in range(11)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_codec_that_crashes_costs_its_image_alone(
    tmp_path: Path, workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ["a", "crash1", "b", "once1", "crash2", "print", "c"]
    paths = [save_image(tmp_path / f"{name}.png", number) for number, name in enumerate(names)]
    with Readers(Hostile(small_preprocessing(), 10_000), workers) as readers:
        found = dict(readers.read(paths, 3))
    assert {path.stem for path, loaded in found.items() if loaded.pixels is None} == {"crash1", "crash2"}
    assert found[paths[1]].error == (f"{paths[1]}: its reading was broken off (SIGSEGV ended the process)")
    assert capfd.readouterr() == ("", "")  # what libraries say names no file


def test_a_mistake_of_ours_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = save_image(tmp_path / "wrong.png", 0)
    with Readers(Hostile(small_preprocessing(), 10_000), 1) as readers:
        ((_, loaded),) = readers.read([path], 1)
    assert loaded.error == f"{path}: its reading was broken off (the process ended with exit code 1)"
    assert "ZeroDivisionError: a mistake of ours" in capfd.readouterr().err


def test_processes_that_somebody_kills_are_replaced(reader: ImageReader, tmp_path: Path) -> None:
    paths = sorted(make_folder(tmp_path / "pictures", 40).iterdir())
    before = children()
    with Readers(reader, 2) as readers:
        found = []
        for path, loaded in readers.read(paths, 4):
            found.append((path, loaded))
            if len(found) % 9 == 1:
                for pid in children() - before:
                    os.kill(pid, signal.SIGKILL)
    assert [path for path, _ in found] == paths
    assert all(loaded.error is None for _, loaded in found)


def test_nothing_is_left_behind(reader: ImageReader, tmp_path: Path) -> None:
    paths = sorted(make_folder(tmp_path / "pictures", 12).iterdir())
    processes, threads = children(), threading.active_count()
    with Readers(reader, 2) as readers:
        next(readers.read(paths, 4))
        assert len(children() - processes) == 2
    assert children() <= processes
    assert threading.active_count() == threads


def test_reading_stays_at_most_so_far_ahead(reader: ImageReader, tmp_path: Path) -> None:
    path = save_image(tmp_path / "0.png", 0)
    asked = 0

    def endless() -> object:
        nonlocal asked
        while True:
            asked += 1
            yield path

    with Readers(reader, 0) as readers:
        stream = readers.read(endless(), 5)  # type: ignore[arg-type]
        for number in range(1, 9):
            next(stream)
            assert asked == number + 5


def test_a_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    save_image(tmp_path / "0.png", 0)
    program = (
        "import os, sys, time; from pathlib import Path\n"
        "from captioner.images.reading import ImageReader\n"
        "from captioner.images.reading import Readers\n"
        "from tests.small_model import small_preprocessing\n"
        "readers = Readers(ImageReader(small_preprocessing(), 10_000), 1)\n"
        f"next(readers.read([Path({str(tmp_path / '0.png')!r})] * 2, 1))\n"
        "print(readers._processes[0]._popen.pid, flush=True)\n"
        "time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()


def test_processes_import_neither_torch_nor_what_lies_in_the_current_folder(
    reader: ImageReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Downloaded images may lie beside a file called numpy.py."""
    for name in ("numpy", "PIL", "captioner", "io", "pickle", "torch"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    path = save_image(tmp_path / "0.png", 0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    with Readers(reader, 1) as readers:
        ((_, loaded),) = readers.read([path], 1)
        pid = readers._processes[0]._popen.pid
        maps = Path(f"/proc/{pid}/maps").read_text() if Path("/proc/self/maps").exists() else ""
    assert loaded.error is None
    assert not (tmp_path / "executed").exists()
    assert "libtorch" not in maps
    assert "onnxruntime" not in maps


def test_a_process_that_cannot_start_ends_the_run_with_one_line(
    reader: ImageReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        Readers(reader, 1) as readers,
        pytest.raises(
            CaptionerError,
            match=r"no process that reads images can be started \(the process ended with exit code 1\)",
        ),
    ):
        list(readers.read([save_image(tmp_path / "0.png", 0)], 1))
    monkeypatch.setattr(sys, "executable", "/absent/python")
    with Readers(reader, 1) as readers, pytest.raises(CaptionerError, match=r"No such file or directory"):
        list(readers.read([tmp_path / "0.png"], 1))
