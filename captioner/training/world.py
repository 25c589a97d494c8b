"""The processes that train one model together, as one of them sees them.

Every process holds the whole model and computes the gradient of its share of each batch; one sum over all
processes makes it the gradient of the whole batch, and every process takes the same step. The sum is a
plain all-reduce of one flat buffer after the backward pass, not ``DistributedDataParallel``: that averages
over processes, which is wrong where they hold unequal numbers of words, needs a forward pass in every
process, also in one that has no photo of a small last batch, and reduces at each backward pass, while here
a step may have several. What it would gain, sending gradients while others are still computed, is little
for models of this size.
"""

from __future__ import annotations

import hashlib
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from captioner.errors import OptionError, TrainingError

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What ends a run: Ctrl-C, and what ``torchrun`` sends to all processes when one has ended."""

_TELLING = 10.0  # seconds
_TOLD = "told"


class ProcessLostError(TrainingError):
    """Another process of the run has ended, or cannot be reached."""


@dataclass(frozen=True)
class World:
    """The processes of a run as one of them sees it; by default it is alone, and nothing is sent.

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
        if chosen.type != "cuda" or chosen.index is not None:
            raise OptionError(
                f"--device {chosen} cannot be divided among several processes; give --device cuda or cpu"
            )
        if torch.cuda.device_count() < self.local_size:
            raise OptionError(
                f"this machine has {torch.cuda.device_count()} GPUs for {self.local_size} processes; "
                "lower --nproc_per_node or give --device cpu"
            )
        device = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(device)
        return device

    def seed(self, *numbers: int) -> None:
        """Let every process draw its own random numbers, which depend on ``numbers`` and rank alone.

        So nothing has to be collected to go on exactly with an interrupted run. A process that is alone
        keeps the states of its generators.
        """
        if self.size > 1:
            text = " ".join(map(str, (*numbers, self.rank)))
            torch.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))

    def sum_gradients(self, parameters: Sequence[Tensor], figures: Sequence[float]) -> list[float]:
        """Replace the gradients by their sums over all processes, and give the sums of some figures.

        A gradient that is absent counts as zero; one that is absent everywhere stays absent.

        Raises:
            ProcessLostError: another process has ended; the gradients are then of no use.
        """
        if self.size == 1:
            return list(figures)
        gradients = [parameter.grad for parameter in parameters]
        pieces = [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(parameters, gradients, strict=True)
        ]
        present = [float(gradient is not None) for gradient in gradients]
        tail = torch.tensor([*present, *figures], device=parameters[0].device)
        buffer = torch.cat([*(piece.reshape(-1) for piece in pieces), tail])
        with self._together():
            dist.all_reduce(buffer)
        *sums, tail = torch.split(buffer, [*(piece.numel() for piece in pieces), len(tail)])
        found: list[float] = tail.tolist()
        holding = found[: len(present)]
        for parameter, piece, values, holders in zip(parameters, pieces, sums, holding, strict=True):
            parameter.grad = piece.copy_(values.view(piece.shape)) if holders else None
        return found[len(present) :]

    def send_weights(self, weights: Sequence[Tensor]) -> None:
        """Give every process the weights of rank 0, to the last bit.

        Raises:
            ProcessLostError: another process has ended.
        """
        if self.size > 1 and weights:
            buffer = torch.cat([weight.detach().reshape(-1) for weight in weights])
            with self._together():
                dist.broadcast(buffer, 0)
            for weight, values in zip(
                weights, torch.split(buffer, [weight.numel() for weight in weights]), strict=True
            ):
                weight.detach().copy_(values.view(weight.shape))

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank, in every process.

        Raises:
            ProcessLostError: another process has ended.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process.

        Raises:
            ProcessLostError: another process has ended.
        """
        if self.size == 1:
            return flag
        flags = torch.tensor([float(flag)])
        with self._together():
            dist.all_reduce(flags)
        return bool(flags.item())

    def share(self, value: T) -> T:
        """The value of rank 0, in every process.

        Raises:
            ProcessLostError: another process has ended.
        """
        if self.size == 1:
            return value
        values: list[Any] = [value]
        with self._together():
            dist.broadcast_object_list(values, 0)
        shared: T = values[0]
        return shared

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Make sure that all processes are about to do the same.

        Raises:
            TrainingError: in all of them, if one has other options, data or versions; it says which.
            ProcessLostError: another process has ended.
        """
        (_, first), *others = self.gather((socket.gethostname(), dict(facts)))
        for rank, (host, found) in enumerate(others, start=1):
            differing = [name for name in first if found.get(name) != first[name]]
            if differing:
                name = differing[0]
                raise TrainingError(
                    f"process {rank} on {host} differs from process 0 in {', '.join(differing)} ({name} is "
                    f"{found.get(name)}, not {first[name]}); give all of them the same command and data"
                )

    @contextmanager
    def first_on_each_machine(self) -> Iterator[None]:
        """Let one process of each machine do something before the others, who then find it done.

        It works with the threads of all, since the others wait.

        Raises:
            ProcessLostError: another process has ended.
        """
        if self.size == 1:
            yield
            return
        if self.local_rank == 0:
            threads = torch.get_num_threads()
            torch.set_num_threads(threads * self.local_size)
            try:
                yield
            finally:
                torch.set_num_threads(threads)
            self._wait_for_all()
            self._wait_for_all()
        else:
            self._wait_for_all()
            yield
            self._wait_for_all()

    def tell(self) -> None:
        """Let the others know that rank 0 tells of a failure."""
        with suppress(RuntimeError):  # nobody is left who could tell it twice
            if self._store is not None:
                self._store.set(_TOLD, "")

    def is_told(self) -> bool:
        """Whether rank 0 tells of the failure that this process has met too; waits for it a little."""
        deadline = time.monotonic() + _TELLING
        with suppress(RuntimeError):  # there is nobody left to ask
            while self._store is not None and time.monotonic() < deadline:
                if self._store.check([_TOLD]):
                    return True
                time.sleep(0.1)
        return False

    def _wait_for_all(self) -> None:
        with self._together():
            dist.barrier(self._patient)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Turn the failure of a collective operation into one line."""
        try:
            yield
        except RuntimeError as error:
            ignore_signals()
            if self.leads:
                self.tell()
            raise ProcessLostError(
                f"another process of this run has ended or cannot be reached ({reason(error)})"
            ) from error


ALONE = World()


def ignore_signals() -> None:
    """The run ends anyway; the signal that torchrun then sends must not keep the reason from being told."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def reason(error: Exception) -> str:
    """The first sentence of torch's message, without the place in its source."""
    line = str(error).partition("\n")[0]
    return (line.partition("] ")[2] or line).partition(". ")[0].rstrip(".")
