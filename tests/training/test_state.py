from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from captioner.errors import CaptionerError, TrainingError
from captioner.training.folder import TrainingState, load_state, random_states, set_random_states
from tests.training.runs import bits

CPU = torch.device("cpu")


def _state() -> TrainingState:
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return TrainingState(
        {"lr": 1e-3, "data": "7 photos"},
        epoch=2,
        batch=3,
        step=40,
        loss_sum=0.1 + 0.2,
        words=17,
        best_score=1 / 3,
        best_epoch=1,
        weights=layer.state_dict(),
        optimiser=optimiser.state_dict(),
        average={"steps": 3, "weights": layer.state_dict()},
        norms=[0.1, 1 / 3],
        random=random_states(CPU),
    )


def test_a_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    state = _state()
    state.save(tmp_path / "state.pt")
    loaded = load_state(tmp_path / "state.pt")
    assert bits(vars(loaded)) == bits(vars(state))


def test_a_damaged_state_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    _state().save(path)
    whole = path.read_bytes()
    chance = random.Random(0)
    damaged = [
        b"",
        b"PK",
        b"nonsense" * 50,
        whole + b"x",
        *(whole[: chance.randrange(len(whole))] for _ in range(40)),
    ]
    for _ in range(100):
        spoilt = bytearray(whole)
        spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
        damaged.append(bytes(spoilt))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=r"state\.pt: is damaged .*`overwrite`"):
            load_state(path)


def test_a_foreign_file_is_one_line(tmp_path: Path) -> None:
    torch.save({"epoch": 1}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="damaged"):
        load_state(tmp_path / "state.pt")


def test_a_state_with_other_fields_is_of_another_version(tmp_path: Path) -> None:
    state = _state()
    state.__dataclass_fields__ = {**state.__dataclass_fields__, "decoder": None}  # type: ignore[dict-item]
    state.decoder = {}  # type: ignore[attr-defined]
    state.save(tmp_path / "state.pt")
    with pytest.raises(TrainingError, match=r"state\.pt: is of another version of captioner; .*`overwrite`"):
        load_state(tmp_path / "state.pt")


def test_a_state_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read: Is a directory"):
        load_state(tmp_path)


def test_a_state_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match="cannot write"):
        _state().save(tmp_path / "absent" / "state.pt")


def test_what_differs_is_named() -> None:
    state = _state()
    state.check_identity({"lr": 1e-3})
    state.check_identity({"lr": 1e-3, "data": "7 photos"})
    with pytest.raises(TrainingError, match=r"other settings .*: lr, new \(lr was 0.001, is now 0.01\)"):
        state.check_identity({"lr": 1e-2, "data": "7 photos", "new": 1})


def test_while_scores_are_nothing_a_later_epoch_is_better() -> None:
    scores = [0.0, 0.0, 2e-10, 1e-12, 0.0441, 0.0, 0.0441, 0.0442]
    state, better = TrainingState({}), []
    for score in scores:
        better.append(state.is_better(score))
        state.best_score = score if better[-1] else state.best_score
    assert better == [True, True, True, True, True, False, False, True]


def test_an_epoch_begins_with_nothing_counted() -> None:
    state = _state()
    state.clipped, state.skipped, state.skipped_in_row = 3, 2, 1
    state.begin_epoch()
    counts = (state.epoch, state.batch, state.loss_sum, state.words, state.clipped, state.skipped)
    assert counts == (3, 0, 0.0, 0, 0, 0)
    assert (state.step, state.skipped_in_row) == (40, 1)


@pytest.mark.parametrize(
    ("epoch", "best_epoch", "epochs", "patience", "why"),
    [
        (0, 0, 5, 2, ""),
        (4, 3, 5, 2, ""),
        (4, 2, 5, 2, "no better score for 2 epochs"),
        (4, 1, 5, 0, ""),
        (5, 5, 5, 2, "all 5 epochs are done"),
    ],
)
def test_a_run_is_finished_after_its_epochs_or_its_patience(
    epoch: int, best_epoch: int, epochs: int, patience: int, why: str
) -> None:
    state = TrainingState({}, epoch=epoch, best_epoch=best_epoch)
    assert state.why_finished(epochs, patience) == why


def test_random_numbers_go_on_where_they_were() -> None:
    states = random_states(CPU)
    first = torch.rand(5)
    set_random_states(states, CPU)
    assert torch.equal(torch.rand(5), first)
