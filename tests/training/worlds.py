"""Several real processes that train together, with the environment that ``torchrun`` would give them."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

from tests.training import processes

Setup = Callable[[], None]

_UNTIL_THE_END = ExitStack()
_NOISE = re.compile(r"^\[(rank|[EW]\d)|^frame #|^<omitting|^Exception raised from|\d%\|")


@dataclass(frozen=True)
class Members:
    """Running processes and the files with what they say, by rank."""

    processes: list[BaseProcess]
    logs: list[Path]
    store: TCPStore

    def finish(self) -> list[int | None]:
        """Exit codes by rank; negative for the signal that ended a process, None for one that hangs."""
        codes = [processes.finish(process) for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes

    def said(self) -> list[list[str]]:
        """What the processes have said, without progress bars and what torch itself says."""
        return [
            [line for line in log.read_text().splitlines() if line and not _NOISE.search(line)] for log in self.logs
        ]


def start(
    folder: Path, target: Callable[..., None], arguments: Sequence[Sequence[Any]], *, machines: int = 1
) -> Members:
    """Run ``target(*arguments[rank])`` in one process for each rank, spread over pretended machines."""
    # As under torchrun, what the processes meet at outlives each of them.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    size = len(arguments)
    local = size // machines
    logs = [folder / f"log-{rank}" for rank in range(size)]
    started = []
    for rank, own in enumerate(arguments):
        logs[rank].write_text("")
        numbers = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank % local, "LOCAL_WORLD_SIZE": local}
        places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True}
        environment = {name: str(value) for name, value in {**numbers, **places}.items()}
        started.append(processes.start(_member, logs[rank], environment, target, own))
    return Members(started, logs, store)


def _member(environment: dict[str, str], target: Callable[..., None], arguments: Sequence[Any]) -> None:
    os.environ.update(environment)
    target(*arguments)


def train(arguments: Sequence[str], *setups: Setup) -> None:
    """The command line, after some preparations."""
    from captioner.cli import main

    for setup in setups:
        setup()
    sys.exit(main(arguments))


def in_double() -> None:
    """A setup: this process computes in float64 until it ends."""
    from tests.training.runs import in_double

    _UNTIL_THE_END.enter_context(in_double())


def on_step(step: int, rank: int, act: Callable[[], None]) -> None:
    """A setup: in one process, do something after a step."""
    from captioner.training.trainer import Trainer

    if os.environ.get("RANK", "0") != str(rank):
        return
    run = Trainer._step

    def acting(trainer: Trainer, parts: Sequence[Any]) -> None:
        run(trainer, parts)
        if trainer.state.step == step:
            act()

    Trainer._step = acting  # type: ignore[method-assign, assignment]


def in_validation(rank: int, epoch: int, act: Callable[[], None]) -> None:
    """A setup: in one process, do something when the validation of an epoch begins."""
    from captioner.training.trainer import Trainer

    if os.environ.get("RANK", "0") != str(rank):
        return
    run = Trainer._validate

    def acting(trainer: Trainer) -> Any:
        if trainer.state.epoch == epoch:
            act()
        return run(trainer)

    Trainer._validate = acting  # type: ignore[method-assign]


def no_number_for(image: int, epoch: int) -> None:
    """A setup: in one epoch, the loss of batches (or shares of them) with an image is not a number."""
    from captioner.training.data import Batch
    from captioner.training.trainer import Trainer

    run = Trainer._backward

    def broken(trainer: Trainer, batch: Batch, words: int) -> torch.Tensor:
        loss = run(trainer, batch, words)
        return loss * float("nan") if image in batch.images and trainer.state.epoch == epoch else loss

    Trainer._backward = broken  # type: ignore[method-assign]


def record_images(folder: Path) -> None:
    """A setup: each process notes the images that it trains on, a line a batch: epoch, step, images."""
    from captioner.training.data import Batch
    from captioner.training.trainer import Trainer

    run = Trainer._backward
    file = folder / f"photos-{os.environ.get('RANK', '0')}"

    def noting(trainer: Trainer, batch: Batch, words: int) -> torch.Tensor:
        with file.open("a") as out:
            print(json.dumps([trainer.state.epoch, trainer.state.step, batch.images]), file=out)
        return run(trainer, batch, words)

    Trainer._backward = noting  # type: ignore[method-assign]


def record_captioned(folder: Path, batch: int) -> None:
    """A setup: validation in small batches; each process notes how many images of each it captions."""
    from captioner.training import data

    run = data.decode
    file = folder / f"captioned-{os.environ.get('RANK', '0')}"

    def noting(model: Any, regions: torch.Tensor, *more: Any) -> Any:
        with file.open("a") as out:
            print(len(regions), file=out)
        return run(model, regions, *more)

    data._BATCH, data.decode = batch, noting


def send_signal(number: int) -> None:
    """To this process."""
    os.kill(os.getpid(), number)


def exchange(out: Path) -> None:
    """Use every kind of exchange, and note what this process has got."""
    from captioner.training.distributed import joined

    with joined() as world:
        shapes = [(2, 3), (4,), (1,), (5,)]
        parameters = [torch.nn.Parameter(torch.full(shape, float(world.rank))) for shape in shapes]
        world.send_weights(parameters)
        found: dict[str, object] = {"weights": [float(parameter.sum()) for parameter in parameters]}
        # The first gradient is everywhere, the second in rank 1 alone, the third nowhere, the last infinite.
        parameters[0].grad = torch.arange(6.0).view(2, 3) * (world.rank + 1)
        if world.rank == 1:
            parameters[1].grad = torch.ones(4)
            parameters[3].grad = torch.full((5,), float("inf"))
        found["loss"] = world.sum_gradients(parameters, [0.25 * world.rank])
        found["gradients"] = [p.grad if p.grad is None else p.grad.tolist() for p in parameters]
        found["gather"], found["share"] = world.gather(10 * world.rank), world.share(world.rank)
        found["any"] = [world.any(world.rank == 2), world.any(False)]
        world.seed(7, 1)
        first = torch.rand(2).tolist()
        world.seed(7, 2)
        second = torch.rand(2).tolist()
        world.seed(7, 1)
        found["random"] = [first, second, torch.rand(2).tolist()]
        with world.first_on_each_machine():
            time.sleep(0.2 if world.local_rank == 0 else 0)
            found["before"] = [path.name for path in out.parent.glob("made-*")]
            (out.parent / f"made-{world.rank}").touch()
            found["threads"] = torch.get_num_threads()
        found["threads after"] = torch.get_num_threads()
    assert not torch.distributed.is_initialized()
    out.write_text(json.dumps(found))


def fail(kind: str) -> None:
    """Meet a failure inside of a world, as the command line would."""
    from captioner.errors import CaptionerError, OptionError
    from captioner.training import distributed
    from captioner.training.distributed import joined

    distributed._REPORTING = timedelta(seconds=2)
    try:
        with joined() as world:
            world.any(False)
            print("working", file=sys.stderr)
            if kind == "everywhere" or (kind == "in rank 1" and world.rank == 1):
                raise OptionError("no such thing")
            if kind == "killed" and world.rank == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "interrupted":
                os.kill(os.getpid(), signal.SIGTERM)
            world.agree({"seed": 1, "lr": world.rank})
    except CaptionerError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
