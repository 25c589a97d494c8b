"""The files of a run, and the state that an interrupted one goes on from."""

import hashlib
import io
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from captioner.errors import OptionError, TrainingError, os_errors_as
from captioner.files import write_atomically

_DIGEST_BYTES = hashlib.sha256().digest_size
_NOTHING = 0.0005  # scores below are printed as 0.0


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
        figures: sums of what the objective tells beside the loss, weighted by words too.
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

        As long as every score is printed as 0.0, which happens with few images and few steps, scores do not
        tell which epoch is better, and the later one has learned more.
        """
        return score > self.best_score or max(score, self.best_score) < _NOTHING

    def why_finished(self, epochs: int, patience: int) -> str:
        """Why there is nothing left to train; empty as long as there is."""
        if self.epoch >= epochs:
            return f"all {epochs} epochs are done"
        waited = self.epoch - self.best_epoch
        if 0 < patience <= waited:
            return f"no better score for {waited} epochs"
        return ""

    def check_identity(self, now: Mapping[str, Any]) -> None:
        """Accept to go on with these options and data.

        Raises:
            TrainingError: they are not those that the run began with; the message says which.
        """
        differing = [name for name, value in now.items() if self.identity.get(name) != value]
        if differing:
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
        content = path.read_bytes()
        digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        # torch itself does not notice every flipped bit.
        if hashlib.sha256(content).digest() == digest:
            return TrainingState(**torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror or error}") from error
    except TypeError as error:  # other fields
        raise TrainingError(
            f"{path}: is of another version of captioner",
            "go on with that one, or start anew with `overwrite`",
        ) from error
    raise TrainingError(f"{path}: is damaged and cannot be resumed", "start anew with `overwrite`")


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """States of torch's generators on the CPU and on the device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states


def restore_random_states(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Inverse of :func:`random_states`; a device that the run did not use before keeps its state."""
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu" and device.type in states:
        torch.get_device_module(device).set_rng_state(states[device.type])


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
            raise OptionError("`resume` goes on with the earlier run, `overwrite` replaces it", "give one of them")
        with os_errors_as(TrainingError, f"cannot write {self.output}: "):
            if not self.output.parent.is_dir():
                raise TrainingError(f"{self.output.parent}: there is no such folder", "make it first")
            if self.output.is_dir() or (self.path.exists() and not self.path.is_dir()):
                odd = self.output if self.output.is_dir() else self.path
                raise TrainingError(f"{odd} is in the way", "remove it or choose another `output`")
            if self.state.exists() and not (resume or overwrite):
                raise TrainingError(
                    f"{self.path} holds an earlier run", "`resume` goes on with it, `overwrite` replaces it"
                )
            if self.output.exists() and not (self.state.exists() or overwrite):
                raise TrainingError(
                    f"{self.output} exists, but no run that could be resumed; `overwrite` replaces it"
                    if resume
                    else f"{self.output} exists; `overwrite` replaces it"
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
        with os_errors_as(TrainingError, f"cannot write {self.path}: "):
            self.path.mkdir(exist_ok=True)
            for name in ("state.pt", "steps.csv", "epochs.csv", "plot.png", "last.safetensors"):
                (self.path / name).unlink(missing_ok=True)
            if (self.path / "tensorboard").exists():
                shutil.rmtree(self.path / "tensorboard")
