"""The training loop."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from captioner import __version__
from captioner.captioner import choose_device, choose_dtype, find_weights
from captioner.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from captioner.datasets import DatasetOptions
from captioner.errors import TrainingError
from captioner.model.encoder import build_encoder, encoder_preprocessing
from captioner.model.network import CaptionNetwork
from captioner.training.clipping import clip_gradients
from captioner.training.data import Batch, batches_per_epoch, epoch_batches
from captioner.training.features import FeatureStore
from captioner.training.folder import RunFolder
from captioner.training.interruption import Interrupted, on_interrupt
from captioner.training.journal import Journal
from captioner.training.objectives import cross_entropy
from captioner.training.options import TrainingOptions
from captioner.training.preparation import TrainingData, prepare, read_splits
from captioner.training.schedule import learning_rate
from captioner.training.state import TrainingState, load_state, random_states, restore_random_states

# Where a run is computed makes no other run; the checkpoint it goes on from counts by its digest.
_PLACES = ("output", "cache", "device", "init")


def train(
    datasets: DatasetOptions, options: TrainingOptions, *, resume: bool = False, overwrite: bool = False
) -> Path:
    """Train a model with a frozen encoder.

    The best checkpoint goes to ``options.output``; the last one, the log and what a resumed run needs go
    to the folder ``OUTPUT.run`` beside it.

    Args:
        datasets: what to train and validate on.
        options: how.
        resume: go on with an interrupted run; the result is the same as without the interruption.
        overwrite: replace an earlier run.

    Returns:
        Path of the best checkpoint.

    Raises:
        CaptionerError: data, options, disk or loss do not allow to go on; one line says what to do.
        Interrupted: Ctrl-C; the run can be resumed.
    """
    preprocessing = encoder_preprocessing(
        options.encoder, image_size=options.image_size, resize=options.resize
    )
    device = choose_device(options.device)
    dtype = choose_dtype(options.precision, device)
    folder = RunFolder(Path(options.output).expanduser())
    folder.check(resume=resume, overwrite=overwrite)
    initial = None if options.init is None else load_checkpoint(find_weights(options.init))
    identity = _recorded(options) | {"init": None if initial is None else initial.digest}
    state = _resumed(folder, identity) if resume else None
    if state is not None and (why := state.why_finished(options.epochs, options.patience)):
        _say(f"nothing to do, {why}; the best epoch was {state.best_epoch}")
        return folder.output

    splits = read_splits(datasets)
    encoder = build_encoder(options.encoder, preprocessing.size, pretrained=True)
    store = FeatureStore(
        options.cache, encoder, preprocessing, pooled=options.attention == "none", device=device, dtype=dtype
    )
    data = prepare(
        splits,
        options,
        store,
        skip_missing=datasets.skip_missing,
        vocabulary=None if initial is None else initial.vocabulary,
    )
    for name, value in data.summary.items():
        _say(f"{name}: {'; '.join(value) if isinstance(value, list) else value}")
    identity["data"] = data.identity
    if state is None:
        folder.start_anew()
        state = TrainingState(identity)
    state.check_identity(identity)

    torch.manual_seed(options.seed)
    network = CaptionNetwork(
        options.model_config(
            image_size=preprocessing.size, channels=store.shape[-1], vocabulary_size=len(data.vocabulary)
        )
    )
    network.encoder = encoder
    if initial is not None:
        _go_on_from(initial, network, options)
    checkpoint = Checkpoint(network, data.vocabulary, preprocessing, options.decoding_options())
    Trainer(checkpoint, data, options, state, folder, device=device, dtype=dtype).run()
    return folder.output


def _go_on_from(initial: Checkpoint, network: CaptionNetwork, options: TrainingOptions) -> None:
    """Take over the decoder of a checkpoint, which must be of the same architecture."""
    own, other = network.config.to_dict(), initial.network.config.to_dict()
    differing = [name for name in own if own[name] != other[name] and name != "dropout"]
    if differing:
        named = ", ".join(f"{name} {other[name]!r}" for name in differing)
        raise TrainingError(f"cannot go on from {options.init}, whose options are {named}; give the same")
    network.decoder.load_state_dict(initial.network.decoder.state_dict())


def _resumed(folder: RunFolder, identity: Mapping[str, Any]) -> TrainingState | None:
    if not folder.state.exists():
        _say(f"there is no run in {folder.path} yet; starting from the beginning")
        return None
    state = load_state(folder.state)
    state.check_identity(identity)
    if state.best_epoch and not folder.output.exists():
        raise TrainingError(
            f"cannot resume: {folder.output}, the best checkpoint so far, is gone; "
            "put it back or start anew with --overwrite"
        )
    return state


class Trainer:
    """Fits the decoder of a checkpoint to captions.

    Args:
        checkpoint: the model; its network is changed.
        data: what to train and validate on.
        options: how.
        state: where to go on.
        folder: for log, checkpoints and state.
        device: where to train.
        dtype: bfloat16 for mixed precision, float32 for none.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        data: TrainingData,
        options: TrainingOptions,
        state: TrainingState,
        folder: RunFolder,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.checkpoint, self.data, self.options = checkpoint, data, options
        self.state, self.folder = state, folder
        self.device, self.dtype = device, dtype
        self.decoder = checkpoint.network.decoder.to(device)
        self.parameters: list[Tensor] = list(self.decoder.parameters())
        matrices = [parameter for parameter in self.parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in self.parameters if parameter.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": options.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=options.lr)
        self.epoch_steps = batches_per_epoch(len(data.captions), options.batch_size)
        self.interrupted = False
        resumed = bool(state.decoder)
        if resumed:
            self.decoder.load_state_dict(state.decoder)
            self.optimiser.load_state_dict(state.optimiser)
            restore_random_states(state.random, device)
        self.journal = Journal(folder.path, after=state.step if resumed else None)

    def run(self) -> None:
        """Train until all epochs are done or nothing gets better.

        Raises:
            TrainingError: the loss is not a number.
            CaptionerError: a file cannot be written.
            Interrupted: after Ctrl-C, with everything saved, or after a second one.
        """
        state, options = self.state, self.options
        try:
            with on_interrupt(self._note_interrupt):
                if not state.decoder:
                    self._save_state()  # so that a run that is killed in its first epoch can be resumed too
                while not (why := state.why_finished(options.epochs, options.patience)):
                    self._epoch()
        except Interrupted:
            raise
        except KeyboardInterrupt as error:
            raise Interrupted("broken off, without saving the last steps") from error
        finally:
            self.journal.close()
        _say(f"finished, {why}; the best epoch was {state.best_epoch}")

    def _epoch(self) -> None:
        options, state = self.options, self.state
        started, words_before = time.monotonic(), state.words
        batches = epoch_batches(
            self.data.captions, options.batch_size, seed=options.seed, epoch=state.epoch, start=state.batch
        )
        self.decoder.train()
        for batch in tqdm(
            batches,
            f"epoch {state.epoch + 1}/{options.epochs}",
            total=self.epoch_steps,
            initial=state.batch,
            unit="batch",
            leave=False,
        ):
            self._step(batch)
            state.batch += 1
            self._stop_if_interrupted()
        rate = (state.words - words_before) / max(time.monotonic() - started, 1e-3)
        loss = state.loss_sum / state.words
        state.epoch, state.batch, state.loss_sum, state.words = state.epoch + 1, 0, 0.0, 0
        self._validate(loss, rate)
        if not state.why_finished(options.epochs, options.patience):
            self._stop_if_interrupted()

    def _step(self, batch: Batch) -> None:
        state, options = self.state, self.options
        features = self.data.features.fetch([self.data.photos[photo] for photo in batch.photos], self.device)
        words, owners = batch.words.to(self.device), batch.owners.to(self.device)
        rate = learning_rate(state.step, self.epoch_steps * options.epochs, options.lr, options.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            first = self.decoder.initial_state(features).select(owners)
            loss = cross_entropy(self.decoder, first, words, batch.lengths, options.label_smoothing)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_gradients(self.parameters, norm=options.clip_norm, value=options.clip_value)
        value = loss.item()
        if not math.isfinite(value) or not math.isfinite(norm):
            self.journal.flush()
            raise TrainingError(
                f"the loss is no longer a number at step {state.step + 1}; start again with a lower --lr "
                f"(now {options.lr:g}) or --clip-norm (now {options.clip_norm})"
            )
        self.optimiser.step()
        state.step += 1
        count = int(batch.lengths.sum())
        state.loss_sum += value * count
        state.words += count
        self.journal.step(
            {
                "step": state.step,
                "epoch": state.epoch + 1,
                "loss": value,
                "lr": rate,
                "gradient_norm": norm,
                "clipped": norm > (options.clip_norm or math.inf),
            }
        )

    def _validate(self, loss: float, rate: float) -> None:
        """Score generated captions, and keep what the epoch has brought."""
        state, options = self.state, self.options
        self.decoder.eval()
        figures: dict[str, float] = {}
        scores = []
        for part in self.data.validation:
            found = part.score(self.decoder, self.data.vocabulary, self.checkpoint.decoding, self.device)
            figures |= {f"{part.label} {name}": found[name] for name in ("BLEU-4", "CIDEr")}
            scores.append(found[options.select_by])
        score = float(np.mean(scores))
        better = score > state.best_score
        if better:
            state.best_score, state.best_epoch = score, state.epoch
        row = {"epoch": state.epoch, "step": state.step, "loss": loss, "score": score, **figures}
        self._save_checkpoint(self.folder.last, row)
        if better:
            self._save_checkpoint(self.folder.output, row)
        self.journal.epoch(row)
        self._save_state()
        shown = ", ".join(f"{name} {100 * value:.1f}" for name, value in figures.items())
        best = " (best so far)" if better else ""
        _say(f"epoch {state.epoch}: loss {loss:.3f}, {shown}{best}, {rate:.0f} words/s")

    def _save_checkpoint(self, path: Path, row: Mapping[str, float]) -> None:
        training = {
            "options": {**_recorded(self.options), "init": self.state.identity.get("init")},
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

    def _save_state(self) -> None:
        self.journal.flush()
        self.state.decoder = self.decoder.state_dict()
        self.state.optimiser = self.optimiser.state_dict()
        self.state.random = random_states(self.device)
        self.state.save(self.folder.state)

    def _note_interrupt(self) -> None:
        self.interrupted = True

    def _stop_if_interrupted(self) -> None:
        if self.interrupted:
            self._save_state()
            raise Interrupted(f"everything is saved up to step {self.state.step}")


def _recorded(options: TrainingOptions) -> dict[str, Any]:
    """The options that make a run what it is, not where it was computed."""
    return {name: value for name, value in asdict(options).items() if name not in _PLACES}


def _say(text: str) -> None:
    print(text, file=sys.stderr)
