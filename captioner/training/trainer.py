"""Training: from options and data on disk, through the loop of steps and epochs, to the best checkpoint."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, replace
from datetime import datetime, timezone
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import torch
from tqdm import tqdm

from captioner import __version__
from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.datasets import DatasetOptions
from captioner.decoding.options import DecodingOptions
from captioner.errors import CheckpointError, TrainingError
from captioner.interrupt import Interrupted, on_interrupt
from captioner.model.config import BPTTConfig
from captioner.model.encoder import CaptionNetwork, Encoder
from captioner.runtime.export import graphs_of
from captioner.runtime.torch import choose_device, choose_dtype, precision_name
from captioner.saving import save_checkpoint
from captioner.training import attributes, optim
from captioner.training.data import Batch, TrainingData, epoch_batches, prepare, read_splits, step_count, steps_of
from captioner.training.distributed import ALONE, ProcessLostError, World
from captioner.training.encoding import open_source
from captioner.training.folder import Log, RunFolder, TrainingState, load_state, random_states, set_random_states
from captioner.training.losses import CrossEntropy, objective_of
from captioner.training.options import AUTO, ClipConfig, TrainingOptions, recorded_options
from captioner.weights import find_weights

MOST_SKIPPED = 25  # steps in a row without a finite gradient: no more hope
_COUNTS = ("mean length", "distinct words")  # all other figures are shown x100
_OF_ATTENTION = ("attention", "attention_size", "attention_heads")


def train(
    datasets: DatasetOptions,
    options: TrainingOptions,
    *,
    resume: bool = False,
    overwrite: bool = False,
    world: World = ALONE,
) -> Path:
    """Train a model: the decoder, and with ``options.finetune_from`` part of the encoder.

    The best checkpoint goes to ``options.output``, whose path is returned; the last one, the log and what a resumed run
    needs go to the folder ``OUTPUT.run`` beside it.

    Args:
        datasets: what to train and validate on.
        options: how.
        resume: go on with an interrupted run; the result is the same as without the interruption.
        overwrite: replace an earlier run.
        world: the processes that train together, see :func:`captioner.training.distributed.joined`.

    Raises:
        CaptionerError: data, options, disk or loss do not allow to go on; one line says what to do.
        Interrupted: Ctrl-C; the run can be resumed.
    """
    device = world.device(choose_device(options.device))
    dtype = choose_dtype(options.precision, device)
    # What auto stands for is settled here, so that it is recorded, and a run is resumed with the same.
    options = replace(options.with_encoder_for(vectors=datasets.of_vectors), precision=precision_name(dtype))
    folder = RunFolder(Path(options.output).expanduser())
    if world.leads:
        folder.check(resume=resume, overwrite=overwrite)
    initial = load_checkpoint(find_weights(options.init)) if options.init is not None else None
    identity = recorded_options(options) | {"init": initial and initial.digest}
    if options.select_by == AUTO:  # settled by the validation images
        del identity["select_by"]
    state = world.share(_resumed(folder, identity) if resume and world.leads else None)
    if state and (why := state.why_finished(options.epochs, options.patience)):
        say(f"nothing to do, {why}; the best epoch was {state.best_epoch}")
        return folder.output
    with world.first_on_each_machine():
        encoder, preprocessing, store = open_source(datasets, options, initial, device=device, dtype=dtype)
        vocabulary = None if initial is None else initial.vocabulary
        data = prepare(read_splits(datasets), options, store, datasets.skip_missing, vocabulary)
    for name, value in data.summary.items():
        say(f"{name}: {'; '.join(value) if isinstance(value, list) else value}")
    options = replace(options, select_by=data.select_by)
    identity |= {"select_by": data.select_by, "data": data.identity}
    world.agree({**identity, "torch": torch.__version__})
    if state is None and world.leads:
        folder.start_anew()
    state = state or TrainingState(identity)
    state.check_identity(identity)
    network = _new_network(options, encoder, initial, preprocessing.size, store.shape[-1], data)
    # The trainer adds the rest of the story; where the data lay is known here.
    story = {"datasets": asdict(datasets), "init": options.init}
    decoding = DecodingOptions(beam_size=options.beam_size)
    checkpoint = Checkpoint(network, data.vocabulary, preprocessing, decoding, story)
    Trainer(checkpoint, data, options, state, folder, device=device, dtype=dtype, world=world).run()
    return folder.output


def say(text: str) -> None:
    """Print one line to stderr."""
    print(text, file=sys.stderr)


def shown(figures: Mapping[str, float]) -> str:
    """Figures for people, on the scale of papers; the name of a data set may stand before theirs."""
    return ", ".join(
        f"{name} {value:.4g}" if name.endswith(_COUNTS) else f"{name} {100 * value:.1f}"
        for name, value in figures.items()
    )


def _resumed(folder: RunFolder, identity: Mapping[str, Any]) -> TrainingState | None:
    if not folder.state.exists():
        say(f"there is no run in {folder.path} yet; starting from the beginning")
        return None
    state = load_state(folder.state)
    state.check_identity(identity)
    if state.best_epoch and not folder.output.exists():
        what = f"cannot resume: {folder.output}, the best checkpoint so far, is gone"
        raise TrainingError(what, "put it back or start anew with `overwrite`")
    return state


def _new_network(
    options: TrainingOptions,
    encoder: Encoder,
    initial: Checkpoint | None,
    size: int,
    channels: int,
    data: TrainingData,
) -> CaptionNetwork:
    """A network with fresh weights, or with those of a checkpoint of the same architecture.

    Three things may be new then: adaptive attention, which begins as if it were not there; attributes; and words.
    """
    torch.manual_seed(options.seed)
    config = options.model_config(image_size=size, channels=channels, vocabulary_size=len(data.vocabulary))
    network = CaptionNetwork(config)
    network.encoder = encoder
    if initial is not None:
        own, other = asdict(config), asdict(initial.network.config)
        extended = (own["attention"], other["attention"]) == ("adaptive", "none")
        new = {"dropout", *(_OF_ATTENTION if extended else ())}
        new |= {"vocabulary_size"} if options.text else set()
        new |= set() if other["attributes"] else {"attributes"}
        if differing := [name for name in own if own[name] != other[name] and name not in new]:
            named = ", ".join(f"{name} {other[name]!r}" for name in differing)
            raise TrainingError(f"cannot go on from {options.init}, whose options are {named}", "give the same")
        own_weights = network.decoder.state_dict()  # these share their memory with the decoder
        for name, value in initial.network.decoder.state_dict().items():
            own_weights[name][tuple(map(slice, value.shape))] = value  # new words stand behind those that it knows
        bias = network.decoder.output.bias.detach()
        bias[other["vocabulary_size"] :] = bias[: other["vocabulary_size"]].min()
    predicted = len(initial.vocabulary) if initial is not None and initial.network.config.attributes else 0
    if options.attributes and (data.imageless or not predicted):
        attributes.expect(network.decoder, (*data.captions, *data.imageless), predicted)
    return network


class Trainer:
    """Fits the weights of a network that require gradients to captions.

    Args:
        checkpoint: the model; its network is changed.
        data: what to train and validate on.
        options: how.
        state: where to go on.
        folder: for log, checkpoints and state.
        device: where to train.
        dtype: bfloat16 for mixed precision, float32 for none.
        world: the processes that train together.
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
        world: World = ALONE,
    ) -> None:
        self.checkpoint, self.data, self.options = checkpoint, data, options
        self.state, self.folder, self.device, self.dtype, self.world = state, folder, device, dtype, world
        self.decoder = checkpoint.network.decoder.to(device)
        self.inputs = data.inputs(options, device)
        self.parameters = optim.trained_parameters(checkpoint.network)
        world.send_weights(list(self.parameters.values()))
        self.optimiser = torch.optim.AdamW(optim.parameter_groups(self.parameters, options), lr=options.lr)
        limits = ClipConfig.parse(options.clip)
        self.flow = BPTTConfig(truncate=options.truncate_bptt, hidden_limit=limits.hidden)
        self.objective = objective_of(options, data, self.decoder, self.flow, self._precision)
        self.clipper = optim.Clipper(limits, state.norms)
        self.average = optim.EMA(self.parameters if options.ema else {}, options.ema)
        self.epoch_steps = step_count(len(data.captions), options.batch_size, options.accumulate)
        self.steps = self.epoch_steps * options.epochs
        self.interrupted, self.saved = Event(), time.monotonic()
        if state.weights:
            with torch.no_grad():
                for name, value in self.parameters.items():
                    value.copy_(state.weights[name])
            self.optimiser.load_state_dict(state.optimiser)
            if state.average:
                self.average.load_state_dict(state.average)
            set_random_states(state.random, device)
        self.log = Log(folder.path, state.step if state.weights else None, state.epoch) if world.leads else None

    def run(self) -> None:
        """Train until all epochs are done or nothing gets better.

        Raises:
            TrainingError: loss or gradients are not finite any more.
            CaptionerError: a file cannot be written.
            Interrupted: after Ctrl-C, with everything saved, or after a second one.
        """
        state, options = self.state, self.options
        try:
            with on_interrupt(self.interrupted.set, several=self.world.size > 1, quiet=not self.world.leads):
                if not state.weights:
                    self._save_state()  # so that a run that is killed in its first epoch can be resumed too
                while not (why := state.why_finished(options.epochs, options.patience)):
                    self._epoch()
        except Interrupted:
            raise
        except KeyboardInterrupt as error:
            raise Interrupted("broken off, without saving the last steps") from error
        except ProcessLostError as error:
            self._save_state()
            saved = f"everything is saved up to step {state.step}"
            kept = saved if self.world.leads else "what process 0 saved last is kept"
            raise TrainingError(f"{error}; {kept}; to go on, give the same command with `resume`") from error
        finally:
            if self.log is not None:
                self.log.close()
        say(f"finished, {why}; the best epoch was {state.best_epoch}")

    def _epoch(self) -> None:
        options, state = self.options, self.state
        started, words_before = time.monotonic(), state.words
        batches = epoch_batches(
            self.data.captions,
            options.batch_size,
            seed=options.seed,
            epoch=state.epoch,
            start=state.batch,
            mixture_weights=self.data.mixture_weights,
        )
        self.decoder.train()
        for parts in tqdm(
            self.inputs.ahead(steps_of(batches, options.accumulate), self._images, state.epoch),
            f"epoch {state.epoch + 1}/{options.epochs}",
            total=self.epoch_steps,
            initial=-(-state.batch // options.accumulate),
            unit="step",
            leave=False,
        ):
            self._step(parts)
            state.batch += len(parts)
            self._save_in_between()
        rate = (state.words - words_before) / max(time.monotonic() - started, 1e-3)
        self._finish_epoch(rate)
        if not state.why_finished(options.epochs, options.patience):
            self._stop_if_interrupted()

    def _images(self, parts: Sequence[Batch]) -> list[int]:
        """The images of a step that this process encodes."""
        return [image for part in parts for image in part.images[slice(*self.world.span(len(part.images)))]]

    def _step(self, parts: Sequence[Batch]) -> None:
        """One step of the optimiser, over the loss of some batches."""
        for group in self.optimiser.param_groups:
            group["lr"] = optim.learning_rate(self.state.step, self.steps, group["highest"], self.options.warmup)
        self.world.seed(self.options.seed, self.state.epoch, self.state.batch)
        self.optimiser.zero_grad(set_to_none=True)
        texts = attributes.text_batches(self.data, self.options, self.state.epoch, self.state.batch, len(parts))
        words = sum(int(part.lengths.sum()) for part in (*parts, *texts))
        shares, text_shares = (
            [part.part(*self.world.span(len(part.images))) for part in whole] for whole in (parts, texts)
        )
        found = [self._backward(share, words) for share in shares if share.images]
        found += [self._backward_text(share, words) for share in text_shares if share.images]
        none = torch.zeros(1 + len(self.objective.figures))
        sums = torch.stack(found).sum(dim=0) if found else none
        loss, *figures = self.world.sum_gradients(list(self.parameters.values()), sums.tolist())
        images = sum(len(part.images) for part in parts)
        means = {name: value / images for name, value in zip(self.objective.figures, figures, strict=True)}
        self._update(loss, words, means)

    def _backward(self, batch: Batch, words: int) -> torch.Tensor:
        """Add the gradient of a batch's part in the loss of a step of ``words``; return that part and its figures."""
        with self._precision():
            regions = self.inputs.fetch(batch.images)
        probability = optim.sampling_probability(self.state.step, self.steps, self.options.scheduled_sampling)
        next_input = optim.ScheduledSampling(self.decoder, probability) if probability else None
        found = self.objective(batch, regions, words, epoch=self.state.epoch, next_input=next_input)
        found[0].backward()  # type: ignore[no-untyped-call]
        return found.detach()

    def _backward_text(self, batch: Batch, words: int) -> torch.Tensor:
        """Do as :meth:`_backward` for captions without images, which only cross-entropy learns from."""
        assert isinstance(self.objective, CrossEntropy)
        found = self.objective.of_text(batch, words)
        found.backward()  # type: ignore[no-untyped-call]
        return found.detach()

    def _precision(self) -> AbstractContextManager[object]:
        """While it lasts, what profits from it is computed in the precision of the run."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _update(self, loss: float, words: int, figures: Mapping[str, float]) -> None:
        """Clip the gradients, change the weights and record the step; or skip it."""
        state, parameters = self.state, list(self.parameters.values())
        norm = optim.gradient_norm(parameters)
        state.step += 1
        skipped = not (math.isfinite(loss) and math.isfinite(norm))
        clipped = optim.Clipped(None, False) if skipped else self.clipper.clip(parameters, norm)
        if self.log is not None:
            row = {
                "epoch": state.epoch + 1,
                "loss": loss,
                "lr": self.optimiser.param_groups[0]["lr"],
                "gradient_norm": norm,
                "threshold": clipped.threshold,
                "clipped": clipped.acted,
                "skipped": skipped,
            }
            self.log.step(state.step, {**row, **figures})
        if skipped:
            state.skipped += 1
            state.skipped_in_row += 1
            if state.skipped_in_row == MOST_SKIPPED:
                self._give_up(f"in {MOST_SKIPPED} steps in a row, up to step {state.step}")
            return
        self.optimiser.step()
        self.average.update()
        state.loss_sum += loss * words
        state.words += words
        for name, value in figures.items():
            state.figures[name] = state.figures.get(name, 0.0) + value * words
        state.clipped += clipped.acted
        state.skipped_in_row = 0

    def _finish_epoch(self, rate: float) -> None:
        """Score generated captions, and keep what the epoch has brought."""
        state = self.state
        if 2 * state.skipped > self.epoch_steps:
            self._give_up(f"in {state.skipped} of {self.epoch_steps} steps of the epoch")
        if not all(bool(value.isfinite().all()) for value in self.parameters.values()):
            self._give_up(f"after step {state.step}")
        self._save_state()  # validation can take minutes, in which a run may be killed
        loss, skipped = state.loss_sum / state.words, state.skipped
        means = {name: value / state.words for name, value in state.figures.items()}
        row = {"loss": loss, "clipped": state.clipped / (self.epoch_steps - skipped), "skipped": skipped, **means}
        with self.average.applied():
            figures, score = self._validate()
            state.begin_epoch()
            best = state.is_better(score)
            if best:
                state.best_score, state.best_epoch = score, state.epoch
            row = {"epoch": state.epoch, "step": state.step, **row, "score": score, **figures}
            if self.log is not None:
                self._save_checkpoint(self.folder.last, row)
                if best:
                    self._save_checkpoint(self.folder.output, row)
                self.log.epoch(row)
        self._save_state()
        marks = " (best so far)" * best + f", {skipped} steps skipped" * bool(skipped)
        beside = "".join(f", {name} {value:.3f}" for name, value in means.items())
        say(f"epoch {state.epoch}: loss {loss:.3f}{beside}, {shown(figures)}{marks}, {rate:.0f} words/s")

    def _validate(self) -> tuple[dict[str, float], float]:
        """Figures of generated captions by data set and name, and the score that chooses the best epoch."""
        self.decoder.eval()
        figures: dict[str, float] = {}
        scores = []
        for part in self.data.validation:
            found = part.score(self.decoder, self.data.vocabulary, self.checkpoint.decoding, self.device, self.world)
            figures |= {f"{part.label} {name}": value for name, value in found.items()}
            scores.append(found[self.data.select_by])
        return figures, sum(scores) / len(scores)

    def _give_up(self, when: str) -> NoReturn:
        """End a run that has gone astray, with weights that are still good kept."""
        where = ""
        if self.log is not None:
            self.log.flush()
            with self.average.applied(), suppress(CheckpointError):  # a weight is not a number
                self._save_checkpoint(self.folder.last, {"epoch": self.state.epoch, "step": self.state.step})
            if self.folder.last.exists():
                where = f", perhaps from {self.folder.last} with `init`"
        raise TrainingError(
            f"the loss or its gradient is not finite {when}",
            f"start again with a lower threshold in `clip` (now {self.options.clip}) "
            f"or a lower `lr` (now {self.options.lr:g}){where}",
        )

    @cached_property
    def _graphs(self) -> str | None:
        return graphs_of(self.checkpoint, say, encoder=not self.options.external_encoder)

    def _save_checkpoint(self, path: Path, row: Mapping[str, float]) -> None:
        """Write the model, with the weights that it has now, and its story."""
        training = {
            **self.checkpoint.training,
            "options": {**recorded_options(self.options), "init": self.state.identity.get("init")},
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
        checkpoint = replace(self.checkpoint, training=training, graphs=self._graphs)
        save_checkpoint(path, checkpoint, external_encoder=self.options.external_encoder)

    def _save_state(self) -> None:
        state = self.state
        if self.log is None:
            return
        state.weights = {name: value.detach() for name, value in self.parameters.items()}
        state.optimiser = self.optimiser.state_dict()
        state.average = self.average.state_dict() if self.options.ema else {}
        state.norms = list(self.clipper.norms)
        state.random = random_states(self.device)
        self.log.flush()
        state.save(self.folder.state)
        self.saved = time.monotonic()

    def _save_in_between(self) -> None:
        """After a step: save when asked to stop, and every few minutes."""
        self._stop_if_interrupted()
        waited = time.monotonic() - self.saved
        # While steps are skipped the weights may be lost already; the state before that is the better one.
        if 0 < 60 * self.options.save_every <= waited and not self.state.skipped_in_row:
            self._save_state()

    def _stop_if_interrupted(self) -> None:
        if self.world.any(self.interrupted.is_set()):
            self._save_state()
            raise Interrupted(f"everything is saved up to step {self.state.step}")
