"""The files of a run: the checkpoint that was asked for, and the folder beside it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from captioner.errors import OptionError, TrainingError


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
            TrainingError: the files cannot be written, there is an earlier run and neither was asked for, or
                there is a checkpoint but no run to resume.
        """
        if resume and overwrite:
            raise OptionError(
                "--resume goes on with the earlier run, --overwrite replaces it; give one of them"
            )
        with _access(self.output):
            if not self.output.parent.is_dir():
                raise TrainingError(f"{self.output.parent}: there is no such folder; make it first")
            if self.output.is_dir() or (self.path.exists() and not self.path.is_dir()):
                odd = self.output if self.output.is_dir() else self.path
                raise TrainingError(f"{odd} is in the way; remove it or choose another --output")
            if self.state.exists() and not (resume or overwrite):
                raise TrainingError(
                    f"{self.path} holds an earlier run; --resume goes on with it, --overwrite replaces it"
                )
            if self.output.exists() and not (self.state.exists() or overwrite):
                raise TrainingError(
                    f"{self.output} exists, but no run that could be resumed; --overwrite replaces it"
                    if resume
                    else f"{self.output} exists; --overwrite replaces it"
                )
            for folder in (self.output.parent, self.path):
                if folder.is_dir():
                    with tempfile.TemporaryFile(dir=folder):
                        pass

    def start_anew(self) -> None:
        """Make the folder, and remove what an earlier run left in it; its best checkpoint stays for now.

        Raises:
            TrainingError: the folder cannot be written.
        """
        with _access(self.path):
            self.path.mkdir(exist_ok=True)
            for name in ("state.pt", "steps.csv", "epochs.csv", "plot.png", "last.safetensors"):
                (self.path / name).unlink(missing_ok=True)
            if (self.path / "tensorboard").exists():
                shutil.rmtree(self.path / "tensorboard")


@contextmanager
def _access(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror or error}") from error
