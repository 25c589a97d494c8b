"""What one step of training does, on a model so small that a step takes milliseconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from captioner.checkpoint import load_checkpoint
from captioner.model.config import BPTTConfig
from captioner.model.decoder import Decoder
from captioner.training import trainer as trainer_module
from captioner.training.data import Batch, ValidationSet
from captioner.training.folder import load_state
from captioner.training.losses import CrossEntropy
from captioner.training.optim import ScheduledSampling
from captioner.training.trainer import Trainer
from tests.training.runs import bits, read_rows, weight_bound
from tests.training.small_trainer import small_trainer, weights


def _rows(trainer: Trainer, name: str = "steps.csv") -> list[dict[str, str]]:
    return read_rows(trainer.folder.path / name)


def _gradients(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The gradients of every step that the optimiser takes from now on."""
    seen: list[Tensor] = []
    step = torch.optim.AdamW.step

    def measured(optimiser: torch.optim.AdamW) -> None:
        parts = [value.grad for group in optimiser.param_groups for value in group["params"]]
        seen.append(torch.cat([part.flatten() for part in parts if part is not None]))
        step(optimiser)

    monkeypatch.setattr(torch.optim.AdamW, "step", measured)
    return seen


def _forced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[BPTTConfig, ScheduledSampling | None]]:
    """What ``Decoder.teacher_force`` is asked for from now on."""
    seen = []
    teacher_force = Decoder.teacher_force

    def spied(
        decoder: Decoder,
        words: Tensor,
        lengths: Tensor,
        state: Any,
        flow: Any,
        next_input: Any,
        on_attention: Any = None,
    ) -> Tensor:
        seen.append((flow, next_input))
        return teacher_force(decoder, words, lengths, state, flow, next_input, on_attention)

    monkeypatch.setattr(Decoder, "teacher_force", spied)
    return seen


@pytest.mark.usefixtures("double_training")
def test_accumulated_batches_are_one_large_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = _gradients(monkeypatch)
    large = small_trainer(tmp_path / "large.safetensors", batch_size=12, clip="none")
    large.run()
    whole = gradients.copy()
    gradients.clear()
    # 22 images with unequal captions: the second step has batches of 4, 4 and 2.
    parts = small_trainer(tmp_path / "parts.safetensors", batch_size=4, accumulate=3, clip="none")
    parts.run()
    assert len(whole) == len(gradients) == 4
    for got, want in zip(gradients, whole, strict=True):
        torch.testing.assert_close(got, want)
    assert [row["loss"] for row in _rows(parts)] == [row["loss"] for row in _rows(large)]
    bound = weight_bound(large.optimiser.state_dict(), large.state.step)
    torch.testing.assert_close(weights(parts), weights(large), rtol=0, atol=bound)
    assert [row["loss"] for row in _rows(parts, "epochs.csv")] == [row["loss"] for row in _rows(large, "epochs.csv")]


@pytest.mark.parametrize(
    ("clip", "limit"), [("norm:0.01", 0.01), ("none", None), ("value:0.001", None), ("hidden:0.0001", None)]
)
def test_gradients_are_clipped_as_the_option_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: str, limit: float | None
) -> None:
    gradients = _gradients(monkeypatch)
    flows = _forced(monkeypatch)
    trainer = small_trainer(tmp_path / "model.safetensors", clip=clip, epochs=1)
    trainer.run()
    rows = _rows(trainer)
    norms = [float(row["gradient_norm"]) for row in rows]
    taken = [float(gradient.norm()) for gradient in gradients]
    assert len(rows) == 6
    assert min(norms) > 0.02
    assert {row["threshold"] for row in rows} == {"" if limit is None else str(limit)}
    if limit is not None:
        assert taken == pytest.approx([limit] * 6, rel=1e-3)
        assert {row["clipped"] for row in rows} == {"1"}
    elif clip.startswith("value"):
        assert max(float(gradient.abs().max()) for gradient in gradients) == pytest.approx(1e-3)
        assert {row["clipped"] for row in rows} == {"1"}
    else:
        assert taken == pytest.approx(norms, rel=1e-4)
    assert {flow.hidden_limit for flow, _ in flows} == {1e-4 if clip.startswith("hidden") else None}
    assert float(_rows(trainer, "epochs.csv")[0]["clipped"]) == np.mean([int(row["clipped"]) for row in rows])


def test_the_automatic_limit_is_a_percentile_of_the_norms_in_the_log(tmp_path: Path) -> None:
    trainer = small_trainer(tmp_path / "model.safetensors", clip="auto:40")
    trainer.run()
    norms = [float(row["gradient_norm"]) for row in _rows(trainer)]
    for step, row in enumerate(_rows(trainer), 1):
        threshold = np.percentile(norms[:step], 40)
        assert float(row["threshold"]) == pytest.approx(threshold, rel=1e-4)
        assert row["clipped"] == str(int(norms[step - 1] > threshold * (1 + 1e-6)))


def test_gradients_are_truncated_as_the_option_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flows = _forced(monkeypatch)
    small_trainer(tmp_path / "model.safetensors", truncate_bptt=3, epochs=1).run()
    assert {flow for flow, _ in flows} == {BPTTConfig(truncate=3)}


def test_the_models_own_words_come_in_gradually(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feeds = _forced(monkeypatch)
    small_trainer(tmp_path / "model.safetensors", scheduled_sampling=0.6).run()
    assert len(feeds) == 12
    assert feeds[0][1] is None
    probabilities = [next_input.probability for _, next_input in feeds[1:] if next_input is not None]
    assert probabilities == pytest.approx([0.05 * step for step in range(1, 12)])


def test_the_average_is_what_is_validated_and_saved_and_training_goes_on_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[Tensor] = []
    judge = ValidationSet.score

    def spied(part: ValidationSet, decoder: Decoder, *rest: Any) -> dict[str, float]:
        judged.append(decoder.embedding.weight.detach().clone())
        return judge(part, decoder, *rest)

    monkeypatch.setattr(ValidationSet, "score", spied)
    plain = small_trainer(tmp_path / "plain.safetensors")
    averaged = small_trainer(tmp_path / "averaged.safetensors", ema=0.9)
    plain.run()
    averaged.run()
    assert torch.equal(weights(plain), weights(averaged))
    assert averaged.average is not None
    kept = averaged.average.weights["decoder.embedding.weight"]
    assert torch.equal(judged[-1], kept)
    assert not torch.equal(kept, averaged.decoder.embedding.weight)
    saved = load_checkpoint(averaged.folder.last).network.decoder.embedding.weight
    torch.testing.assert_close(saved, kept, rtol=0, atol=1e-3)  # stored as float16
    state = load_state(averaged.folder.state)
    assert torch.equal(state.weights["decoder.embedding.weight"], averaged.decoder.embedding.weight)
    assert torch.equal(state.average["weights"]["decoder.embedding.weight"], kept)


def test_a_run_is_saved_every_few_minutes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 40))  # seconds; read once a step, and once when the state is saved
    # The trainer's clock alone: threads of other tests read the real one.
    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    saved: list[tuple[int, int]] = []
    save = Trainer._save_state

    def spied(trainer: Trainer) -> None:
        save(trainer)
        saved.append((trainer.state.epoch, trainer.state.batch))

    monkeypatch.setattr(Trainer, "_save_state", spied)
    small_trainer(tmp_path / "often.safetensors", save_every=1.0, epochs=1).run()
    assert {batch for _, batch in saved} == {0, 1, 3, 5, 6}
    saved.clear()
    small_trainer(tmp_path / "seldom.safetensors", save_every=0.0, epochs=1).run()
    assert {batch for _, batch in saved} == {0, 6}


def _poison(monkeypatch: pytest.MonkeyPatch, what: Callable[[Trainer, Tensor], Tensor], steps: Sequence[int]) -> None:
    """Spoil the loss of some steps, counted from 1."""
    backward, objective = Trainer._backward, CrossEntropy.mean

    def poisoned(trainer: Trainer, batch: Batch, words: int) -> Tensor:
        def spoilt(*arguments: Any, **settings: Any) -> Tensor:
            loss = objective(*arguments, **settings)
            return what(trainer, loss) if trainer.state.step + 1 in steps else loss

        monkeypatch.setattr(CrossEntropy, "mean", spoilt)
        return backward(trainer, batch, words)

    monkeypatch.setattr(Trainer, "_backward", poisoned)


def _not_a_number(_trainer: Trainer, loss: Tensor) -> Tensor:
    return loss * math.nan


def _infinite_gradient(trainer: Trainer, loss: Tensor) -> Tensor:
    # The square root of zero has the value zero, and no finite slope.
    return loss + (trainer.decoder.output.bias[:1] * 0).sqrt().sum()


@pytest.mark.parametrize("what", [_not_a_number, _infinite_gradient])
def test_a_step_that_is_not_finite_is_skipped_and_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: Callable[[Trainer, Tensor], Tensor],
) -> None:
    _poison(monkeypatch, what, [3, 4])
    step = Trainer._step
    before: list[Any] = []

    def compared(trainer: Trainer, parts: Sequence[Batch]) -> None:
        def now() -> Any:
            assert trainer.average is not None
            parts = (weights(trainer), trainer.optimiser.state_dict()["state"], trainer.average.state_dict())
            return bits([*parts, list(trainer.clipper.norms), trainer.state.loss_sum, trainer.state.words])

        earlier = now()
        step(trainer, parts)
        before.append(earlier == now())

    monkeypatch.setattr(Trainer, "_step", compared)
    trainer = small_trainer(tmp_path / "model.safetensors", clip="auto", ema=0.9)
    trainer.run()
    assert [number for number, same in enumerate(before, 1) if same] == [3, 4]
    rows = _rows(trainer)
    assert [row["skipped"] for row in rows] == ["0", "0", "1", "1", *"00000000"]
    assert rows[2]["threshold"] == ""
    assert not math.isfinite(float(rows[2]["gradient_norm"]))
    epochs = _rows(trainer, "epochs.csv")
    assert [row["skipped"] for row in epochs] == ["2", "0"]
    # The share is of the steps that were taken: four of the first epoch.
    taken = [int(row["clipped"]) for row in rows[:6] if row["skipped"] == "0"]
    assert float(epochs[0]["clipped"]) == np.mean(taken)
    assert math.isfinite(float(epochs[0]["loss"]))
    assert "2 steps skipped" in capsys.readouterr().err


def _failure(trainer: Trainer) -> str:
    with pytest.raises(trainer_module.TrainingError) as raised:
        trainer.run()
    message = str(raised.value)
    assert "\n" not in message
    assert "`clip` (now norm:5)" in message
    assert "`lr` (now 0.001)" in message
    return message


def test_training_stops_when_nothing_is_finite_any_more_and_keeps_the_good_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "MOST_SKIPPED", 3)
    _poison(monkeypatch, _not_a_number, [7, 9, 10, 11])
    trainer = small_trainer(tmp_path / "model.safetensors", epochs=9)
    message = _failure(trainer)
    assert "in 3 steps in a row, up to step 11" in message
    last = trainer.folder.last
    assert str(last) in message
    saved = load_checkpoint(last)
    assert saved.training["validation"] == {"epoch": 1, "step": 11}
    torch.testing.assert_close(
        saved.network.decoder.embedding.weight, trainer.decoder.embedding.weight, rtol=0, atol=1e-3
    )
    assert [row["skipped"] for row in _rows(trainer)] == [*"000000", *"10111"]


def test_training_stops_when_most_steps_of_an_epoch_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _poison(monkeypatch, _not_a_number, [1, 2, 4, 6])
    assert "in 4 of 6 steps of the epoch" in _failure(small_trainer(tmp_path / "model.safetensors"))


def test_weights_that_are_no_numbers_are_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = torch.optim.AdamW.step
    taken = 0

    def broken(optimiser: torch.optim.AdamW) -> None:
        nonlocal taken
        step(optimiser)
        taken += 1
        if taken == 12:
            optimiser.param_groups[0]["params"][0].detach().fill_(math.inf)

    monkeypatch.setattr(torch.optim.AdamW, "step", broken)
    trainer = small_trainer(tmp_path / "model.safetensors", epochs=3)
    assert "after step 12" in _failure(trainer)
    # The checkpoint and the state of the first epoch are as they were.
    assert load_checkpoint(trainer.folder.last).training["validation"]["epoch"] == 1  # type: ignore[index]
    assert load_state(trainer.folder.state).epoch == 1
    assert len(_rows(trainer)) == 12
