"""The processes that ``torchrun`` has started to train one model, as one of them sees them.

Every process holds the whole model and computes the gradient of its share of each batch. One sum over all processes
makes it the gradient of the whole batch, and every process takes the same step. The sum is an all-reduce of one flat
buffer after the backward pass, not ``DistributedDataParallel``: that averages over processes, which is wrong where
they hold unequal numbers of words, and it needs a forward pass in every process, even in one without an image of a
small last batch.
"""

import hashlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from captioner.errors import CaptionerError, OptionError, TrainingError
from captioner.options import with_flags

T = TypeVar("T")

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # torchrun sends SIGTERM to all processes when one has ended
_MEETING = timedelta(minutes=10)
_SILENCE = timedelta(minutes=30)  # of a process that hangs or is cut off; one that ends is noticed at once
_PATIENCE = timedelta(days=30)  # of those that wait while another one encodes the images
_REPORTING, _REPORTED = timedelta(seconds=10), "reported"


class ProcessLostError(TrainingError):
    """Another process of the run has ended, or cannot be reached."""


@dataclass(frozen=True)
class World:
    """The processes of a run as one of them sees it; by default it is alone, and nothing is sent.

    All exchanges raise :class:`ProcessLostError` if another process has ended.

    Attributes:
        rank: number of this process; 0 leads: it alone writes files and messages.
        size: how many there are.
        local_rank: number of this process on its machine.
        local_size: how many there are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    _store: Any = None
    _patient: Any = None

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def span(self, count: int) -> tuple[int, int]:
        """First and last + 1 of this process's share of ``count`` things; shares differ by one at most."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def device(self, chosen: torch.device) -> torch.device:
        """The device of this process: on a machine with several GPUs, each process takes one.

        Raises:
            OptionError: there are fewer GPUs than processes, or the device cannot be divided.
        """
        if self.size == 1 or chosen.type == "cpu":
            return chosen
        if chosen != torch.device("cuda"):
            raise OptionError(f"`device` {chosen} cannot be divided among several processes", "use cuda or cpu")
        if (count := torch.cuda.device_count()) < self.local_size:
            what = f"this machine has {count} GPUs for {self.local_size} processes"
            raise OptionError(what, "lower --nproc_per_node or give `device` cpu")
        device = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(device)
        return device

    def seed(self, *numbers: int) -> None:
        """Let each of several processes draw random numbers that depend on ``numbers`` and rank alone.

        So an exact resumption needs no states of theirs. A process that is alone keeps its own.
        """
        if self.size > 1:
            text = " ".join(map(str, (*numbers, self.rank)))
            torch.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))

    def sum_gradients(self, parameters: Sequence[torch.Tensor], figures: Sequence[float]) -> list[float]:
        """Replace the gradients by their sums over all processes, and return the sums of some figures.

        A gradient that is absent counts as zero; one that is absent everywhere stays absent.
        """
        if self.size == 1:
            return list(figures)
        pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        present = [float(parameter.grad is not None) for parameter in parameters]
        tail = torch.tensor([*present, *figures], device=parameters[0].device)
        buffer = torch.cat([*(piece.reshape(-1) for piece in pieces), tail])
        self._run(dist.all_reduce, buffer)
        *sums, tail = torch.split(buffer, [*(piece.numel() for piece in pieces), len(tail)])
        totals: list[float] = tail.tolist()
        for parameter, piece, values, holders in zip(parameters, pieces, sums, totals, strict=False):
            parameter.grad = piece.copy_(values.view(piece.shape)) if holders else None
        return totals[len(parameters) :]

    def send_weights(self, weights: Sequence[torch.Tensor]) -> None:
        """Give every process the weights of rank 0, to the last bit."""
        for weight in weights:
            values = weight.detach().contiguous()
            self._run(dist.broadcast, values, 0)
            weight.detach().copy_(values)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank, in every process."""
        values = [value] * self.size
        self._run(dist.all_gather_object, values, value)
        return values

    def share(self, value: T) -> T:
        """The value of rank 0, in every process."""
        return self.gather(value)[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return any(self.gather(flag))

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Make sure that all processes are about to do the same.

        Raises:
            TrainingError: in all of them, if one has other options, data or versions; it says which.
        """
        (_, first), *others = self.gather((socket.gethostname(), dict(facts)))
        for rank, (host, found) in enumerate(others, start=1):
            if differing := [name for name in first if found.get(name) != first[name]]:
                name = differing[0]
                raise TrainingError(
                    f"process {rank} on {host} differs from process 0 in {', '.join(differing)} "
                    f"({name} is {found.get(name)}, not {first[name]})",
                    "give all of them the same command and data",
                )

    @contextmanager
    def first_on_each_machine(self) -> Iterator[None]:
        """Let one process of each machine do something, with the threads of all, before the others find it done."""
        threads = torch.get_num_threads()
        if self.local_rank:
            self._run(dist.barrier, self._patient)
        try:
            torch.set_num_threads(threads if self.local_rank else threads * self.local_size)
            yield
        finally:
            torch.set_num_threads(threads)
        if not self.local_rank:
            self._run(dist.barrier, self._patient)
        self._run(dist.barrier, self._patient)

    def _run(self, operation: Callable[..., object], *arguments: object) -> None:
        """Run a collective operation, unless this process is alone; its failure is one line."""
        if self.size > 1:
            try:
                operation(*arguments)
            except RuntimeError as error:
                self._end()
                what = f"another process of this run has ended or cannot be reached ({_reason(error)})"
                raise ProcessLostError(what) from error

    def _end(self) -> None:
        """Before a failure is reported: ignore the signals that follow it; rank 0 informs the others."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if self.leads:
            with suppress(RuntimeError):  # there are no others any more
                self._store.set(_REPORTED, "")


ALONE = World()


@contextmanager
def joined() -> Iterator[World]:
    """The world that this process belongs to, by the environment that ``torchrun`` gives it.

    Without ``torchrun`` the process is alone. Otherwise standard output and error are silent except in rank 0;
    SIGTERM is treated like Ctrl-C; and of a failure in several processes, one is reported: the others leave with
    :class:`SystemExit`.

    Raises:
        OptionError: the environment is incomplete.
        TrainingError: the other processes cannot be reached.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE
        return
    world = _connect()
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        with ExitStack() as silence:
            if not world.leads:
                nowhere = silence.enter_context(Path(os.devnull).open("w"))
                silence.enter_context(redirect_stdout(nowhere))
                silence.enter_context(redirect_stderr(nowhere))
            yield world
    except (CaptionerError, KeyboardInterrupt) as error:
        world._end()
        if world.leads:
            raise
        if isinstance(error, KeyboardInterrupt):
            raise SystemExit(130) from error
        try:
            world._store.wait([_REPORTED], _REPORTING)
        except RuntimeError:  # rank 0 has not met this failure
            text = " ".join(with_flags(str(error)).split())
            print(f"captioner: error: process {world.rank} on {socket.gethostname()}: {text}", file=sys.stderr)
        raise SystemExit(2) from error
    dist.destroy_process_group()


def _connect() -> World:
    """Meet the other processes: over gloo, and for tensors on GPUs over NCCL."""
    *texts, host, port = given = [os.environ.get(name, "") for name in _VARIABLES]
    rank, size, local_rank, local_size = (int(text) if text.isdecimal() else -1 for text in texts)
    if not (host and port and 0 <= rank < size and 0 <= local_rank < local_size <= size):
        found = ", ".join(f"{name} {value!r}" for name, value in zip(_VARIABLES, given, strict=True))
        what = f"these environment variables do not fit together: {found}"
        raise OptionError(what, "start several processes with torchrun, or unset WORLD_SIZE")
    if not dist.is_available():
        raise OptionError("this build of torch cannot join several processes", "start without torchrun")
    from torch.distributed.rendezvous import rendezvous  # absent from such builds

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        store, _, _ = next(rendezvous("env://", rank, size, timeout=_MEETING))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_SILENCE)
        patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        raise TrainingError(f"cannot meet the other processes at {host}:{port} ({_reason(error)})") from error
    return World(rank, size, local_rank, local_size, store, patient)


def _reason(error: Exception) -> str:
    """The first sentence of torch's message, without the place in its source."""
    line = str(error).partition("\n")[0]
    return (line.partition("] ")[2] or line).partition(". ")[0].rstrip(".")
