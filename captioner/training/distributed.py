"""How a process that ``torchrun`` has started meets the others, and how it leaves them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from captioner.errors import CaptionerError, OptionError, ProcessError, TrainingError
from captioner.training.world import ALONE, SIGNALS, World, ignore_signals, reason

# A process that ends is noticed at once; this is for one that hangs, or whose machine is cut off.
_SILENCE = timedelta(minutes=30)
_MEETING = timedelta(minutes=10)
# Encoding the photos takes as long as it takes; others wait for it.
_PATIENCE = timedelta(days=30)
_INTERRUPTED, _WRONG_USE = 130, 2  # exit codes as in captioner.cli


@contextmanager
def joined() -> Iterator[World]:
    """The world that this process belongs to, by the environment that ``torchrun`` gives it.

    Without ``torchrun`` the process is alone. Otherwise standard output and error are silent except in
    rank 0; SIGTERM, which ``torchrun`` sends to all when one process ends, is taken like Ctrl-C; and of a
    failure that several processes meet, one tells: the others leave with :class:`SystemExit`.

    Raises:
        OptionError: the environment is incomplete.
        TrainingError: the other processes cannot be reached.
        ProcessError: not in rank 0, which has not met the failure of this process.
    """
    numbers = _environment()
    if numbers is None:
        yield ALONE
        return
    world = _connect(*numbers)
    previous = [(number, signal.signal(number, signal.default_int_handler)) for number in SIGNALS]
    try:
        with _silence(not world.leads):
            yield world
    except (CaptionerError, KeyboardInterrupt) as error:
        ignore_signals()
        if world.leads:
            world.tell()
            raise
        if isinstance(error, KeyboardInterrupt):
            raise SystemExit(_INTERRUPTED) from error
        if world.is_told():
            raise SystemExit(_WRONG_USE) from error
        raise ProcessError(f"process {world.rank} on {socket.gethostname()}: {error}") from error
    dist.destroy_process_group()
    for number, handler in previous:
        signal.signal(number, handler)


def _environment() -> tuple[int, int, int, int] | None:
    """Rank, size, local rank and local size as torchrun gives them; None for a process that is alone."""
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    absent = [name for name in names if not os.environ.get(name)]
    if absent:
        raise OptionError(
            f"WORLD_SIZE is {size}, but {', '.join(absent)} is not set; start several processes with "
            "torchrun, or unset WORLD_SIZE"
        )
    try:
        rank, total, local_rank, local_size = (int(os.environ[name]) for name in names[:4])
    except ValueError:
        rank = total = local_rank = local_size = -1
    if not (0 <= rank < total and 0 <= local_rank < local_size <= total):
        found = ", ".join(f"{name} {os.environ[name]!r}" for name in names[:4])
        raise OptionError(f"these do not fit together: {found}; start several processes with torchrun")
    return rank, total, local_rank, local_size


def _connect(rank: int, size: int, local_rank: int, local_size: int) -> World:
    """Meet the other processes: over gloo, and for tensors on GPUs over NCCL."""
    if not dist.is_available():
        raise OptionError("this build of torch cannot join several processes; start without torchrun")
    from torch.distributed.rendezvous import rendezvous  # absent from such builds

    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if nccl else "gloo"
    try:
        store, _, _ = next(rendezvous("env://", rank, size, timeout=_MEETING))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_SILENCE)
        patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise TrainingError(f"cannot meet the other processes at {place} ({reason(error)})") from error
    return World(rank, size, local_rank, local_size, store, patient)


@contextmanager
def _silence(wanted: bool) -> Iterator[None]:
    """Nothing that Python prints is seen."""
    if not wanted:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
