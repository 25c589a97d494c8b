"""The folder of a run: the state that an interrupted one goes on from, and the log."""

import csv
import hashlib
import importlib.util
import io
import math
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from captioner.errors import OptionError, TrainingError, os_errors_as
from captioner.files import write_atomically, write_figure

_DIGEST_BYTES = hashlib.sha256().digest_size
_NOTHING = 0.0005  # scores below are printed as 0.0
_UNDRAWN = ("epoch", "clipped", "skipped")  # of a step; TensorBoard draws all else


class RunFolder:
    """``OUTPUT.run``: the log, the last checkpoint, and what a resumed run needs.

    Attributes:
        output: the best checkpoint.
        path: the folder.
        state: what a resumed run needs.
        last: checkpoint of the last epoch.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_suffix(".run")
        self.state = self.path / "state.pt"
        self.last = self.path / "last.safetensors"

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse what would end in a failure or a loss after hours of work.

        Raises:
            OptionError: both are asked for.
            TrainingError: the files cannot be written, there is an earlier run and neither was asked for, or there is
                a checkpoint but no run to resume.
        """
        if resume and overwrite:
            raise OptionError("`resume` goes on with the earlier run, `overwrite` replaces it", "give one of them")
        with os_errors_as(TrainingError, f"cannot write {self.output}: "):
            if not self.output.parent.is_dir():
                raise TrainingError(f"{self.output.parent}: there is no such folder", "make it first")
            if self.output.is_dir() or (self.path.exists() and not self.path.is_dir()):
                odd = self.output if self.output.is_dir() else self.path
                raise TrainingError(f"{odd} is in the way", "remove it or choose another `output`")
            if self.state.exists() and not (resume or overwrite):
                advice = "`resume` goes on with it, `overwrite` replaces it"
                raise TrainingError(f"{self.path} holds an earlier run", advice)
            if self.output.exists() and not (self.state.exists() or overwrite):
                lost = ", but no run that could be resumed" if resume else ""
                raise TrainingError(f"{self.output} exists{lost}; `overwrite` replaces it")
            for folder in (self.output.parent, self.path):
                if folder.is_dir():
                    tempfile.TemporaryFile(dir=folder).close()

    def start_anew(self) -> None:
        """Make the folder, and remove what an earlier run left in it; its best checkpoint stays for now.

        Raises:
            TrainingError: the folder cannot be written.
        """
        with os_errors_as(TrainingError, f"cannot write {self.path}: "):
            self.path.mkdir(exist_ok=True)
            for name in ("state.pt", "steps.csv", "epochs.csv", "plot.png", "last.safetensors"):
                (self.path / name).unlink(missing_ok=True)
            if (self.path / "tensorboard").exists():
                shutil.rmtree(self.path / "tensorboard")


@dataclass
class TrainingState:
    """Progress of a run; it lies in ``OUTPUT.run/state.pt``, behind its own SHA-256.

    Attributes:
        identity: options and data; a run goes on only with the same.
        epoch: epochs finished.
        batch: batches of the next epoch that are done already.
        step: steps done in all, skipped ones included.
        loss_sum: sum of the losses of these batches, weighted by words; without skipped ones.
        words: words in them.
        figures: sums of the objective's other figures, weighted by words too.
        clipped: steps of this epoch in which gradients were clipped.
        skipped: steps of this epoch that were skipped because something was not finite.
        skipped_in_row: steps skipped since the last one that was not.
        best_score: best validation score so far.
        best_epoch: its epoch.
        weights: what is trained, by name in the network.
        optimiser: state of the optimiser.
        average: moving average of the weights; empty if there is none.
        norms: norms of past gradients, where their percentile is the limit; else empty.
        random: states of the generators that draw dropout, see :func:`random_states`.
    """

    identity: dict[str, Any]
    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    words: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    clipped: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    best_score: float = float("-inf")
    best_epoch: int = 0
    weights: dict[str, Any] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)
    norms: list[float] = field(default_factory=list)
    random: dict[str, torch.Tensor] = field(default_factory=dict)

    def begin_epoch(self) -> None:
        """Count one more finished epoch, and begin the sums of the next."""
        self.epoch += 1
        self.batch, self.loss_sum, self.words, self.clipped, self.skipped = 0, 0.0, 0, 0, 0
        self.figures = {}

    def is_better(self, score: float) -> bool:
        """Whether an epoch with this score is the best so far.

        As long as every score is printed as 0.0, which happens with few images and few steps, scores do not show which
        epoch is better, and the later one has learned more.
        """
        return score > self.best_score or max(score, self.best_score) < _NOTHING

    def why_finished(self, epochs: int, patience: int) -> str:
        """Why there is nothing left to train; empty as long as there is."""
        if self.epoch >= epochs:
            return f"all {epochs} epochs are done"
        waited = self.epoch - self.best_epoch
        return f"no better score for {waited} epochs" if 0 < patience <= waited else ""

    def check_identity(self, now: Mapping[str, Any]) -> None:
        """Accept to go on with these options and data.

        Raises:
            TrainingError: they are not those that the run began with; the message says which.
        """
        if differing := [name for name, value in now.items() if self.identity.get(name) != value]:
            name = differing[0]
            raise TrainingError(
                f"cannot resume with other settings than the run began with: {', '.join(differing)} "
                f"({name} was {self.identity.get(name)}, is now {now[name]})"
            )

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all.

        Raises:
            CaptionerError: it cannot be written.
        """
        buffer = io.BytesIO()
        torch.save({name: getattr(self, name) for name in self.__dataclass_fields__}, buffer)
        content = buffer.getvalue()
        write_atomically(path, hashlib.sha256(content).digest() + content)


def load_state(path: Path) -> TrainingState:
    """Read a state.

    Raises:
        TrainingError: it is damaged or cannot be read.
    """
    try:
        with os_errors_as(TrainingError, f"{path}: cannot be read: "):
            content = path.read_bytes()
        digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        # torch itself does not notice every flipped bit.
        if hashlib.sha256(content).digest() == digest:
            return TrainingState(**torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except TypeError as error:  # other fields
        what = f"{path}: is of another version of captioner"
        raise TrainingError(what, "go on with that one, or start anew with `overwrite`") from error
    raise TrainingError(f"{path}: is damaged and cannot be resumed", "start anew with `overwrite`")


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """States of torch's generators on the CPU and on the device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states


def set_random_states(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Inverse of :func:`random_states`; a device that the run did not use before keeps its state."""
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu" and device.type in states:
        torch.get_device_module(device).set_rng_state(states[device.type])


class Log:
    """Writes ``steps.csv``, ``epochs.csv``, ``plot.png`` and TensorBoard events into a folder.

    Args:
        folder: where the files go.
        after: continue an earlier log: what it says of later steps is dropped; None starts anew.
        epochs: what an earlier log says of later epochs is dropped.

    Raises:
        TrainingError: the earlier log is damaged, or the folder cannot be written.
    """

    def __init__(self, folder: Path, after: int | None = None, epochs: int = 0) -> None:
        self.folder = folder
        self.steps = [] if after is None else _read_rows(folder / "steps.csv", "step", after)
        self.epochs = [] if after is None else _read_rows(folder / "epochs.csv", "epoch", epochs)
        self.plots = importlib.util.find_spec("matplotlib") is not None
        if not self.plots:
            text = "plot.png is not drawn without matplotlib; to get it: pip install 'captioner[train]'"
            print(text, file=sys.stderr)
        self.tensorboard: Any = None
        with suppress(ImportError), self._events():
            from torch.utils.tensorboard import SummaryWriter

            purge = None if after is None else after + 1
            self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def step(self, number: int, row: Mapping[str, float | None]) -> None:
        """Note one step; written at the next :meth:`flush`.

        ``number`` counts the steps so far with this one; ``row`` has the other columns, the same at each step.
        """
        self.steps.append({name: _text(value) for name, value in {"step": number, **row}.items()})
        drawn = {name: value for name, value in row.items() if name not in _UNDRAWN and value is not None}
        self._draw("step", {name: value for name, value in drawn.items() if math.isfinite(value)}, number)

    def epoch(self, row: Mapping[str, float]) -> None:
        """Note one epoch and write everything."""
        self.epochs.append({name: _text(value) for name, value in row.items()})
        self._draw("epoch", row, int(row["step"]))
        self.flush()
        if self.plots:
            self._plot()

    def flush(self) -> None:
        """Write the CSV files.

        Raises:
            CaptionerError: they cannot be written.
        """
        for name, rows in (("steps.csv", self.steps), ("epochs.csv", self.epochs)):
            if rows:
                text = io.StringIO()
                writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
                write_atomically(self.folder / name, text.getvalue())
        if self.tensorboard is not None:
            with self._events():
                self.tensorboard.flush()

    def close(self) -> None:
        """Finish the TensorBoard file."""
        if self.tensorboard is not None:
            with suppress(OSError):  # reported by the last flush already
                self.tensorboard.close()

    def _draw(self, kind: str, values: Mapping[str, float], step: int) -> None:
        if self.tensorboard is not None:
            with self._events():
                for name, value in values.items():
                    self.tensorboard.add_scalar(f"{kind}/{name}", value, step)

    def _plot(self) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4), layout="constrained")
        losses, scores = figure.subplots(1, 2)
        epochs = [float(row["epoch"]) for row in self.epochs]
        losses.plot(epochs, [float(row["loss"]) for row in self.epochs], marker="o")
        losses.set(title="training loss per word", xlabel="epoch", ylabel="nats")
        for name in self.epochs[0]:
            if name.endswith(("CIDEr", "BLEU-4")):
                scores.plot(epochs, [100 * float(row[name]) for row in self.epochs], marker="o", label=name)
        scores.set(title="validation captions", xlabel="epoch", ylabel="score x 100")
        scores.legend()
        write_figure(self.folder / "plot.png", figure)

    def _events(self) -> AbstractContextManager[None]:
        return os_errors_as(TrainingError, f"cannot write {self.folder / 'tensorboard'}: ")


def _text(value: float | None) -> str:
    """Whole numbers in full, so that a step can be found again; others with six digits."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, int) else f"{value:.6g}"


def _read_rows(path: Path, column: str, last: int) -> list[dict[str, str]]:
    """Rows of an earlier log up to a step or epoch."""
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if int(row[column]) <= last]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise TrainingError(f"{path}: is damaged", "delete it to go on without the earlier log") from error
