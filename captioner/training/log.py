"""The log of a run: CSV files, a plot, TensorBoard events where that is installed, and checkpoints."""

import csv
import importlib.util
import io
import math
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from captioner import __version__
from captioner.checkpoint import Checkpoint
from captioner.errors import CheckpointError, TrainingError, os_errors_as
from captioner.files import write_atomically
from captioner.saving import save_checkpoint
from captioner.training.options import TrainingOptions, recorded_options
from captioner.training.preparation import TrainingData
from captioner.training.state import RunFolder, TrainingState

_UNDRAWN = ("epoch", "clipped", "skipped")  # of a step; TensorBoard draws all else


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
            print(
                "plot.png is not drawn without matplotlib; to get it: pip install 'captioner[train]'",
                file=sys.stderr,
            )
        self.tensorboard: Any = None
        with suppress(ImportError), self._events():
            from torch.utils.tensorboard import SummaryWriter

            purge = None if after is None else after + 1
            self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def step(self, number: int, row: Mapping[str, float | None]) -> None:
        """Note one step; written at the next :meth:`flush`.

        Args:
            number: steps so far, this one included.
            row: the other columns of ``steps.csv``, the same at each step; None where there is nothing to
                say.
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
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=120)
        write_atomically(self.folder / "plot.png", image.getvalue())

    def close(self) -> None:
        """Finish the TensorBoard file."""
        if self.tensorboard is not None:
            with suppress(OSError):  # reported by the last flush already
                self.tensorboard.close()

    def _events(self) -> AbstractContextManager[None]:
        return os_errors_as(TrainingError, f"cannot write {self.folder / 'tensorboard'}: ")


class Recorder(Log):
    """Writes the log, checkpoints and states of a run into its folder.

    Args:
        checkpoint: the model in training; saved with the weights that it has at that moment.
        data: described in the checkpoint.
        options: described in the checkpoint.
        folder: where everything goes.
        state: where the run begins, or goes on.

    Raises:
        TrainingError: the earlier log is damaged, or the folder cannot be written.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        data: TrainingData,
        options: TrainingOptions,
        folder: RunFolder,
        state: TrainingState,
    ) -> None:
        self.checkpoint, self.data, self.options, self.run = checkpoint, data, options, folder
        self.init = state.identity.get("init")
        super().__init__(folder.path, state.step if state.weights else None, state.epoch)

    def keep(self, row: Mapping[str, float], *, best: bool) -> None:
        """Save checkpoints and log after an epoch.

        Raises:
            CaptionerError: a file cannot be written.
        """
        self.save_checkpoint(self.run.last, row)
        if best:
            self.save_checkpoint(self.run.output, row)
        self.epoch(row)

    def keep_last(self, row: Mapping[str, float]) -> Path | None:
        """Write the log and, if the weights are numbers, the last checkpoint, before a run ends in failure.

        Returns:
            The last checkpoint with good weights; None if there is none.

        Raises:
            CaptionerError: the log cannot be written.
        """
        self.flush()
        with suppress(CheckpointError):
            self.save_checkpoint(self.run.last, row)
        return self.run.last if self.run.last.exists() else None

    def save_checkpoint(self, path: Path, row: Mapping[str, float]) -> None:
        """Write the model with its story.

        Raises:
            CheckpointError: the file cannot be written, or a weight is not a number.
        """
        training = {
            **self.checkpoint.training,
            "options": {**recorded_options(self.options), "init": self.init},
            "data": self.data.summary,
            "validation": {name: round(value, 6) for name, value in row.items()},
            "date": datetime.now(timezone.utc).date().isoformat(),
            "versions": {
                "captioner": __version__,
                "torch": torch.__version__,
                "torchvision": version("torchvision"),
                "python": sys.version.split()[0],
            },
        }
        checkpoint = replace(self.checkpoint, training=training)
        save_checkpoint(path, checkpoint, external_encoder=self.options.external_encoder)


def say(text: str) -> None:
    """Print one line to stderr."""
    print(text, file=sys.stderr)


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
