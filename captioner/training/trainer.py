"""The training loop."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from threading import Event
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from captioner.checkpoint import Checkpoint
from captioner.errors import TrainingError
from captioner.interrupt import Interrupted, on_interrupt
from captioner.model.config import BPTTConfig
from captioner.training.data import Batch, epoch_batches, steps_of, steps_per_epoch
from captioner.training.distributed import ALONE, ProcessLostError, World
from captioner.training.inputs import inputs_of
from captioner.training.log import Recorder, say
from captioner.training.optim import (
    EMA,
    Clipped,
    Clipper,
    ScheduledSampling,
    gradient_norm,
    learning_rate,
    parameter_groups,
    sampling_probability,
    trained_parameters,
)
from captioner.training.options import ClipConfig, TrainingOptions
from captioner.training.preparation import TrainingData
from captioner.training.self_critical import objective_of
from captioner.training.state import RunFolder, TrainingState, random_states, restore_random_states
from captioner.training.validation import shown

MOST_SKIPPED = 25  # steps in a row without a finite gradient: no more hope


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
        self.inputs = inputs_of(data, options, device)
        self.parameters = trained_parameters(checkpoint.network)
        world.send_weights(list(self.parameters.values()))
        self.optimiser = torch.optim.AdamW(parameter_groups(self.parameters, options), lr=options.lr)
        limits = ClipConfig.parse(options.clip)
        self.flow = BPTTConfig(truncate=options.truncate_bptt, hidden_limit=limits.hidden)
        self.objective = objective_of(options, data, self.decoder, self.flow, self._precision)
        self.clipper = Clipper(limits, state.norms)
        self.average = EMA(self.parameters if options.ema else {}, options.ema)
        self.epoch_steps = steps_per_epoch(len(data.captions), options.batch_size, options.accumulate)
        self.interrupted, self.saved = Event(), time.monotonic()
        if state.weights:
            self._restore()
        self.recorder = Recorder(checkpoint, data, options, folder, state) if world.leads else None

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
            kept = f"everything is saved up to step {state.step}"
            if not self.world.leads:
                kept = "what process 0 saved last is kept"
            raise TrainingError(f"{error}; {kept}; to go on, give the same command with `resume`") from error
        finally:
            if self.recorder is not None:
                self.recorder.close()
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
        steps = steps_of(batches, options.accumulate)
        for parts in tqdm(
            self.inputs.ahead(steps, self._images, state.epoch),
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
        self._set_learning_rates()
        self.world.seed(self.options.seed, self.state.epoch, self.state.batch)
        self.optimiser.zero_grad(set_to_none=True)
        words = sum(int(part.lengths.sum()) for part in parts)
        shares = [part.part(*self.world.span(len(part.images))) for part in parts]
        found = [self._backward(share, words) for share in shares if share.images]
        none = torch.zeros(1 + len(self.objective.figures))
        sums = torch.stack(found).sum(dim=0) if found else none
        loss, *figures = self.world.sum_gradients(list(self.parameters.values()), sums.tolist())
        images = sum(len(part.images) for part in parts)
        means = {name: value / images for name, value in zip(self.objective.figures, figures, strict=True)}
        self._update(loss, words, means)

    def _backward(self, batch: Batch, words: int) -> Tensor:
        """Add the gradient of a batch's part in the loss of a step with so many ``words``.

        Returns:
            That part, and what the objective tells beside it.
        """
        with self._precision():
            regions = self.inputs.fetch(batch.images)
        found = self.objective(batch, regions, words, epoch=self.state.epoch, next_input=self._sampling())
        found[0].backward()  # type: ignore[no-untyped-call]
        return found.detach()

    def _precision(self) -> AbstractContextManager[object]:
        """While it lasts, what profits from it is computed in the precision of the run."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _update(self, loss: float, words: int, figures: Mapping[str, float]) -> None:
        """Clip the gradients that are there, change the weights, and note it; or skip the step."""
        state, parameters = self.state, list(self.parameters.values())
        norm = gradient_norm(parameters)
        state.step += 1
        skipped = not (math.isfinite(loss) and math.isfinite(norm))
        clipped = Clipped(None, False) if skipped else self.clipper.clip(parameters, norm)
        if self.recorder is not None:
            row = {
                "epoch": state.epoch + 1,
                "loss": loss,
                "lr": self.optimiser.param_groups[0]["lr"],
                "gradient_norm": norm,
                "threshold": clipped.threshold,
                "clipped": clipped.acted,
                "skipped": skipped,
            }
            self.recorder.step(state.step, {**row, **figures})
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

    def _give_up(self, when: str) -> NoReturn:
        """End a run that has gone astray, with weights that are still good kept."""
        kept = None
        if self.recorder is not None:
            with self.average.applied():
                kept = self.recorder.keep_last({"epoch": self.state.epoch, "step": self.state.step})
        where = f", perhaps from {kept} with `init`" if kept else ""
        raise TrainingError(
            f"the loss or its gradient is not finite {when}",
            "start again with a lower threshold in `clip` "
            f"(now {self.options.clip}) or a lower `lr` (now {self.options.lr:g}){where}",
        )

    def _set_learning_rates(self) -> None:
        steps = self.epoch_steps * self.options.epochs
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.state.step, steps, group["highest"], self.options.warmup)

    def _sampling(self) -> ScheduledSampling | None:
        """What chooses the words that the decoder reads; None for the true ones."""
        steps = self.epoch_steps * self.options.epochs
        probability = sampling_probability(self.state.step, steps, self.options.scheduled_sampling)
        return ScheduledSampling(self.decoder, probability) if probability else None

    def _finish_epoch(self, rate: float) -> None:
        """Score generated captions, and keep what the epoch has brought."""
        state = self.state
        self._check_epoch()
        self._save_state()  # validation can take minutes, in which a run may be killed
        loss, skipped = state.loss_sum / state.words, state.skipped
        row = {"loss": loss, "clipped": state.clipped / (self.epoch_steps - skipped), "skipped": skipped}
        told = {name: value / state.words for name, value in state.figures.items()}
        row |= told
        with self.average.applied():
            figures, score = self._validate()
            state.begin_epoch()
            best = state.is_better(score)
            if best:
                state.best_score, state.best_epoch = score, state.epoch
            row = {"epoch": state.epoch, "step": state.step, **row, "score": score, **figures}
            if self.recorder is not None:
                self.recorder.keep(row, best=best)
        self._save_state()
        marks = " (best so far)" * best + f", {skipped} steps skipped" * bool(skipped)
        beside = "".join(f", {name} {value:.3f}" for name, value in told.items())
        say(f"epoch {state.epoch}: loss {loss:.3f}{beside}, {shown(figures)}{marks}, {rate:.0f} words/s")

    def _check_epoch(self) -> None:
        """Stop a run that skips most of its steps, or whose weights have left the numbers.

        Raises:
            TrainingError: it does.
        """
        if 2 * self.state.skipped > self.epoch_steps:
            self._give_up(f"in {self.state.skipped} of {self.epoch_steps} steps of the epoch")
        if not all(bool(value.isfinite().all()) for value in self.parameters.values()):
            self._give_up(f"after step {self.state.step}")

    def _validate(self) -> tuple[dict[str, float], float]:
        """Figures of generated captions by data set and name, and the score that chooses the best epoch."""
        self.decoder.eval()
        figures: dict[str, float] = {}
        scores = []
        for part in self.data.validation:
            found = part.score(self.decoder, self.data.vocabulary, self.checkpoint.decoding, self.device, self.world)
            figures |= {f"{part.label} {name}": value for name, value in found.items()}
            scores.append(found[self.data.select_by])
        return figures, float(np.mean(scores))

    def _save_state(self) -> None:
        state = self.state
        if self.recorder is None:
            return
        state.weights = {name: value.detach() for name, value in self.parameters.items()}
        state.optimiser = self.optimiser.state_dict()
        state.average = self.average.state_dict() if self.options.ema else {}
        state.norms = list(self.clipper.norms)
        state.random = random_states(self.device)
        self.recorder.flush()
        state.save(self.folder.state)
        self.saved = time.monotonic()

    def _restore(self) -> None:
        """Go on where the state was saved."""
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(self.state.weights[name])
        self.optimiser.load_state_dict(self.state.optimiser)
        if self.state.average:
            self.average.load_state_dict(self.state.average)
        restore_random_states(self.state.random, self.device)

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
