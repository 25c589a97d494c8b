"""Folders as they are found in life, and the command that captions them."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from captioner.captioner import Captioner
from captioner.checkpoint import Checkpoint
from tests.bulk.folders import save_image
from tests.small_model import save_with_graphs

EMOJI, TORN = "🦄 é.png", os.fsdecode(b"\xff\xfe.png")
LONG = "x" * 251 + ".png"


def huge_png(width: int, height: int) -> bytes:
    """An image of a few bytes that says it has thousands of millions of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="session")
def checkpoint_file(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model as the shipped weights are: with graphs; not to be changed."""
    return save_with_graphs(tmp_path_factory.mktemp("checkpoint") / "small.safetensors", checkpoint)


@pytest.fixture(scope="session")
def captioner(checkpoint_file: Path) -> Captioner:
    """The small model as the commands load it."""
    return Captioner.load(checkpoint_file, device="cpu", precision="fp32")


@pytest.fixture
def faults(tmp_path: Path, images: list[Path]) -> tuple[Path, dict[str, str]]:
    """A folder of everything that can be wrong, and what is said of each image; nothing if it is good."""
    folder = tmp_path / "faults"
    good = (
        "good.png",
        "new\nline.png",
        "tab\t\x1b.png",
        EMOJI,
        TORN,
        LONG,
        "quo\"te'.png",
        "--seed.png",
        " .png",
    )
    for number, name in enumerate(good):
        save_image(folder / name, number)
    (folder / "upper.JPG").write_bytes(images[0].read_bytes())
    (folder / "copy.png").write_bytes((folder / "good.png").read_bytes())
    (folder / "empty.jpg").touch()
    (folder / "words.jpg").write_text("not an image\n")
    (folder / "truncated.jpg").write_bytes(images[1].read_bytes()[:5000])
    (folder / "bomb.png").write_bytes(huge_png(60_000, 60_000))
    (folder / "folder.jpg").mkdir()
    (folder / "broken link.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "circle.jpg").symlink_to(folder / "circle.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "notes.txt").write_text("not an image, and nobody said so")
    return folder, {
        **dict.fromkeys((*good, "upper.JPG", "copy.png"), ""),
        "empty.jpg": "file is empty",
        "words.jpg": "not an image in a known format",
        "truncated.jpg": "broken or incomplete JPEG image",
        "bomb.png": "60000 x 60000 pixels are more than the limit of 100,000,000 pixels",
        "folder.jpg": "a folder, not an image",
        "broken link.jpg": "a link to a file that is not there",
        "circle.jpg": "a link to a file that is not there",
        "pipe.jpg": "not a regular file",
    }


Command = Callable[..., list[str]]


@pytest.fixture
def command(checkpoint_file: Path) -> Command:
    def build(*arguments: str | Path) -> list[str]:
        given = ["--weights", str(checkpoint_file), "--device", "cpu", "--batch-size", "4"]
        return ["caption", *map(str, arguments), *given]

    return build


@pytest.fixture
def little_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 100 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], capture_output=True).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)
