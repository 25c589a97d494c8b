"""Folders of images, and runs over them in this process with the small model."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from captioner.bulk.options import FolderOptions
from captioner.bulk.run import Model, Progress, Summary
from captioner.captioner import Captioner
from captioner.embed.folder import caption_folder


def save_image(path: Path, seed: int) -> Path:
    """A small image like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = Image.frombytes("RGB", (24, 18), bytes((seed * 131 + i * i * (seed + 3)) % 256 for i in range(1296)))
    noise.save(path, "PNG")
    return path


def make_folder(folder: Path, count: int = 7, *, broken: tuple[int, ...] = ()) -> Path:
    """Images ``0.png`` to ``count - 1``, some of them broken."""
    for number in range(count):
        path = save_image(folder / f"{number}.png", number)
        if number in broken:
            path.write_bytes(path.read_bytes()[: 60 + number])
    return folder


def model_of(captioner: Captioner, **decoding: Any) -> Model:
    """A loaded model, for :func:`caption_folder`."""
    from dataclasses import replace

    options = replace(captioner.options, **decoding)
    return Model({"weights": captioner.digest, "decoding": options.to_dict()}, options, lambda: captioner)


def caption(
    captioner: Captioner, *paths: str | Path, decoding: dict[str, Any] | None = None, **options: Any
) -> Summary:
    """Caption in this process, reading in a thread unless ``workers`` says otherwise."""
    settings = FolderOptions(**{"workers": 0, "batch_size": 3, **options})
    model = model_of(captioner, **(decoding or {}))
    return caption_folder([os.fspath(path) for path in paths], settings, model, Progress())


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones and journals too, but for the content of journals."""
    return {
        str(path.relative_to(folder)): b"" if path.suffix == ".journal" else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def in_a_child(work: Callable[[], object], seconds: float | None = None, *, stopped: bool = False) -> bool:
    """Work in a forked process, which is killed after some time, or stopped for a moment; whether it was killed."""
    import torch  # not above: images are saved where it is not installed, too

    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            sys.stderr = io.StringIO()
            work()
            os._exit(0)
        finally:
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGSTOP if stopped else signal.SIGKILL)
    if stopped:
        time.sleep(0.1)
        os.kill(child, signal.SIGCONT)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0 or (seconds is not None and not stopped and code == -signal.SIGKILL)
    return code != 0
