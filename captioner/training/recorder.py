"""All that a run writes and says: log, checkpoints, state, progress."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

from captioner import __version__
from captioner.checkpoint import Checkpoint, save_checkpoint
from captioner.errors import CheckpointError
from captioner.training.data import Batch
from captioner.training.folder import RunFolder
from captioner.training.journal import Journal
from captioner.training.options import TrainingOptions, recorded_options
from captioner.training.preparation import TrainingData
from captioner.training.state import TrainingState


class Recorder:
    """Writes into the folder of a run and to stderr.

    Args:
        checkpoint: the model in training; saved with the weights that it has at that moment.
        data: told of in the checkpoint.
        options: told of in the checkpoint.
        folder: where everything goes.
        init: digest of the checkpoint that the run went on from, or None; told of in the checkpoint.
        after: the step that a resumed run goes on from; None for a new run.
        epochs: epochs finished before.

    Raises:
        TrainingError: the earlier log is damaged, or the folder cannot be written.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        data: TrainingData,
        options: TrainingOptions,
        folder: RunFolder,
        *,
        init: object,
        after: int | None,
        epochs: int,
    ) -> None:
        self.checkpoint, self.data, self.options, self.folder = checkpoint, data, options, folder
        self.init = init
        self.journal = Journal(folder.path, after, epochs)

    def progress(
        self, steps: Iterable[list[Batch]], *, epoch: int, total: int, done: int
    ) -> Iterable[list[Batch]]:
        """The steps of an epoch behind a progress bar."""
        title = f"epoch {epoch}/{self.options.epochs}"
        return tqdm(steps, title, total=total, initial=done, unit="step", leave=False)

    def step(self, number: int, row: Mapping[str, float | None]) -> None:
        """Note one step, see :meth:`Journal.step`; written with the next state."""
        self.journal.step(number, row)

    def epoch(self, row: Mapping[str, float], *, best: bool) -> None:
        """Keep what an epoch has brought: checkpoints and log.

        Args:
            row: figures of the epoch.
            best: whether it is the best so far.

        Raises:
            CaptionerError: a file cannot be written.
        """
        self.save_checkpoint(self.folder.last, row)
        if best:
            self.save_checkpoint(self.folder.output, row)
        self.journal.epoch(row)

    def keep_last(self, row: Mapping[str, float]) -> Path | None:
        """Write the log and, if the weights are numbers, the last checkpoint, before a run ends in failure.

        Returns:
            The last checkpoint with good weights; None if there is none.

        Raises:
            CaptionerError: the log cannot be written.
        """
        self.journal.flush()
        with suppress(CheckpointError):
            self.save_checkpoint(self.folder.last, row)
        return self.folder.last if self.folder.last.exists() else None

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

    def save_state(self, state: TrainingState) -> None:
        """Write log and state, so that the run can go on from here.

        Raises:
            CaptionerError: a file cannot be written.
        """
        self.journal.flush()
        state.save(self.folder.state)

    def say(self, text: str) -> None:
        """Tell the user."""
        say(text)

    def close(self) -> None:
        """Finish the log."""
        self.journal.close()


class SilentRecorder:
    """In the place of a :class:`Recorder` where another process writes: does nothing."""

    def progress(
        self, steps: Iterable[list[Batch]], *, epoch: int, total: int, done: int
    ) -> Iterable[list[Batch]]:
        """The steps themselves."""
        return steps

    def step(self, number: int, row: Mapping[str, float | None]) -> None:
        """Nothing."""

    def epoch(self, row: Mapping[str, float], *, best: bool) -> None:
        """Nothing."""

    def keep_last(self, row: Mapping[str, float]) -> None:
        """Nothing."""

    def save_state(self, state: TrainingState) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def say(text: str) -> None:
    """One line to stderr."""
    print(text, file=sys.stderr)
