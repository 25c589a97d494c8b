"""Self-critical training as a run: what is promised of every run holds for it too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from captioner.datasets import DatasetOptions
from captioner.interrupt import Interrupted
from captioner.training import losses
from captioner.training.data import Batch
from captioner.training.options import TrainingOptions
from captioner.training.trainer import Trainer, train
from tests.tolerance import SIX_DIGITS
from tests.training import shapes
from tests.training.runs import assert_same_run, read_rows, run_folder, weight_bound
from tests.training.small_trainer import small_trainer, weights

Tiny = Callable[..., TrainingOptions]

OPTIONS: dict[str, Any] = {
    "objective": "self_critical",
    "init": "made up",
    "samples": 3,
    "cross_entropy_weight": 0.25,
    "dropout": 0.2,
}


def _rows(trainer: Trainer, name: str = "steps.csv") -> list[dict[str, str]]:
    return read_rows(trainer.folder.path / name)


def test_the_log_tells_the_reward_and_how_sentences_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = small_trainer(tmp_path / "model.safetensors", **OPTIONS)
    trainer.run()
    steps, epochs = _rows(trainer), _rows(trainer, "epochs.csv")
    assert list(steps[0])[-2:] == ["skipped", "reward"]
    rewards = [float(row["reward"]) for row in steps]
    assert 0 < min(rewards) < max(rewards) < 10
    assert min(rewards[:6]) < float(epochs[0]["reward"]) < max(rewards[:6])
    signs = ("bad endings", "repeated bigrams", "named twice", "mean length", "distinct words")
    assert all(f"some {name}" in epochs[0] for name in signs)
    assert f"reward {float(epochs[0]['reward']):.3f}, some BLEU-4 " in capsys.readouterr().err


# All that a step may consist of.
EVERYTHING = {"accumulate": 2, "clip": "auto,hidden:0.01", "ema": 0.9, "truncate_bptt": 3, "layers": 2}


@pytest.mark.parametrize("changes", [{}, EVERYTHING, {"attention": "additive", "cross_entropy_weight": 0.0}])
def test_a_run_that_was_stopped_ends_like_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    options = OPTIONS | changes
    small_trainer(tmp_path / "whole.safetensors", **options).run()
    step = Trainer._step

    def stopping(trainer: Trainer, parts: Sequence[Batch]) -> None:
        step(trainer, parts)
        if trainer.state.step == 2:
            trainer.interrupted.set()

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stopping)
        with pytest.raises(Interrupted):
            small_trainer(tmp_path / "stopped.safetensors", **options).run()
    torch.rand(3)
    small_trainer(tmp_path / "stopped.safetensors", resume=True, **options).run()
    assert_same_run(tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors")


@pytest.mark.usefixtures("double_training")
def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    options = OPTIONS | {"dropout": 0.0, "clip": "none", "epochs": 1}
    large = small_trainer(tmp_path / "large.safetensors", batch_size=12, **options)
    parts = small_trainer(tmp_path / "parts.safetensors", batch_size=4, accumulate=3, **options)
    large.run()
    parts.run()
    for row, other in zip(_rows(parts), _rows(large), strict=True):
        for name in ("loss", "reward"):
            assert float(row[name]) == pytest.approx(float(other[name]), rel=SIX_DIGITS)
    bound = weight_bound(large.optimiser.state_dict(), large.state.step)
    torch.testing.assert_close(weights(parts), weights(large), rtol=0, atol=bound)


def test_a_step_that_is_not_finite_is_skipped_and_its_reward_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy_loss = losses.SelfCritical._policy_loss
    calls = 0

    def spoilt(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return policy_loss(*arguments) * (float("nan") if calls == 3 else 1)

    monkeypatch.setattr(losses.SelfCritical, "_policy_loss", spoilt)
    trainer = small_trainer(tmp_path / "model.safetensors", **OPTIONS | {"epochs": 1})
    trainer.run()
    assert [row["skipped"] for row in _rows(trainer)] == [*"001000"]
    assert _rows(trainer, "epochs.csv")[0]["skipped"] == "1"
    assert float(_rows(trainer, "epochs.csv")[0]["reward"]) > 0


def test_features_that_are_no_numbers_skip_a_step_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = small_trainer(tmp_path / "model.safetensors", **OPTIONS | {"epochs": 1})
    fetch, calls = trainer.inputs.fetch, 0

    def spoilt(images: Sequence[int]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return fetch(images) * (float("nan") if calls == 2 else 1)

    monkeypatch.setattr(type(trainer.inputs), "fetch", lambda _, images: spoilt(images))
    trainer.run()
    assert [row["skipped"] for row in _rows(trainer)] == [*"010000"]


@pytest.mark.parametrize(
    ("weight", "samples", "closed", "score", "reward"),
    [(0.0, 5, False, 2.5, 1.15), (0.0, 5, True, 2.5, 1.0), (0.2, 10, False, 6.0, 1.6)],
)
def test_a_tiny_model_learns_what_scores_from_its_own_captions(
    tmp_path: Path, tiny: Tiny, weight: float, samples: int, closed: bool, score: float, reward: float
) -> None:
    shapes.write_table(tmp_path / "shapes", 48, 16)
    datasets = DatasetOptions(dataset=(f"table:{tmp_path}/shapes",))
    # After 4 epochs of cross-entropy the sentences are right and the colours are not.
    first = tiny("first", epochs=4, batch_size=8)
    train(datasets, first)
    second = tiny(
        "second",
        init=first.output,
        objective="self_critical",
        cross_entropy_weight=weight,
        samples=samples,
        reward_end=closed,
        epochs=6,
        batch_size=4,
        lr=5e-3,
    )
    train(datasets, second)
    before, after = (read_rows(run_folder(run).path / "epochs.csv") for run in (first, second))
    assert 0.5 < float(before[-1]["table CIDEr"]) < 2
    assert max(float(row["table CIDEr"]) for row in after) > score
    assert float(after[0]["reward"]) < 1
    assert max(float(row["reward"]) for row in after) > reward
    # The bare reward is soon raised by sentences that break off, and the log tells.
    if weight or closed:
        assert float(after[-1]["table bad endings"]) < 0.1


def test_mixed_precision_trains(datasets: DatasetOptions, tiny: Tiny, finished: TrainingOptions) -> None:
    options = tiny(precision="bf16", epochs=1, init=finished.output, objective="self_critical")
    train(datasets, options)
    rows = read_rows(run_folder(options).path / "steps.csv")
    assert {row["skipped"] for row in rows} == {"0"}
    assert max(float(row["gradient_norm"]) for row in rows) > 0
