from __future__ import annotations

import csv
import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from captioner.errors import CaptionerError, TrainingError
from captioner.training.folder import Log


def _step(number: int) -> dict[str, float | None]:
    return {
        "epoch": 1 + number // 10,
        "loss": 5 / (number + 1),
        "lr": 1e-3,
        "gradient_norm": 0.5,
        "threshold": None,
        "clipped": False,
        "skipped": False,
    }


def _epoch(number: int) -> dict[str, float]:
    return {
        "epoch": number,
        "step": 10 * number,
        "loss": 1 / number,
        "score": 0.5,
        "a CIDEr": 0.5,
        "a BLEU-4": 0.1,
    }


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_steps_and_epochs_are_tables_that_can_be_plotted(tmp_path: Path) -> None:
    journal = Log(tmp_path)
    journal.step(1_234_567, _step(1_234_567))
    journal.step(1_234_568, _step(1_234_568) | {"clipped": True, "threshold": 0.25})
    journal.epoch(_epoch(1))
    journal.close()
    steps = _rows(tmp_path / "steps.csv")
    assert list(steps[0]) == ["step", *_step(1)]
    assert [row["step"] for row in steps] == ["1234567", "1234568"]
    assert [row["clipped"] for row in steps] == ["0", "1"]
    assert [row["threshold"] for row in steps] == ["", "0.25"]
    assert float(steps[0]["loss"]) == pytest.approx(5 / 1_234_568, rel=1e-5)
    assert _rows(tmp_path / "epochs.csv") == [
        {"epoch": "1", "step": "10", "loss": "1", "score": "0.5", "a CIDEr": "0.5", "a BLEU-4": "0.1"}
    ]


def test_tensorboard_reads_the_same_numbers(tmp_path: Path) -> None:
    journal = Log(tmp_path)
    journal.step(1, _step(1))
    journal.step(2, _step(2) | {"loss": math.nan, "gradient_norm": math.inf, "skipped": True})
    journal.epoch(_epoch(1))
    journal.close()
    assert _rows(tmp_path / "steps.csv")[1]["gradient_norm"] == "inf"
    events = _events(tmp_path)
    assert events["step/loss"] == [(1, 2.5)]  # what is not finite cannot be drawn
    assert events["step/gradient_norm"] == [(1, 0.5)]
    assert events["epoch/a CIDEr"] == [(10, 0.5)]


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    journal = Log(tmp_path)
    for number in (1, 2):
        journal.epoch(_epoch(number))
    journal.close()
    with Image.open(tmp_path / "plot.png") as plot:
        colours = plot.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 10


def test_a_continued_journal_drops_what_came_after(tmp_path: Path) -> None:
    journal = Log(tmp_path)
    for number in range(1, 26):
        journal.step(number, _step(number))
        if number % 10 == 0:
            journal.epoch(_epoch(number // 10))
    journal.flush()
    journal.close()
    journal = Log(tmp_path, after=12, epochs=1)
    journal.step(13, _step(13))
    journal.flush()
    journal.close()
    assert [int(row["step"]) for row in _rows(tmp_path / "steps.csv")] == list(range(1, 14))
    assert [row["epoch"] for row in _rows(tmp_path / "epochs.csv")] == ["1"]
    assert [step for step, _ in _events(tmp_path)["step/loss"]] == list(range(1, 14))


def test_a_new_journal_takes_nothing_from_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "steps.csv").write_text("nonsense")
    journal = Log(tmp_path)
    journal.step(1, _step(1))
    journal.flush()
    journal.close()
    assert [row["step"] for row in _rows(tmp_path / "steps.csv")] == ["1"]


@pytest.mark.parametrize("content", ["epoch\nthree\n", "other\n1\n", "epoch,loss\n\n,\n", "\udcff"])
def test_a_damaged_table_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "epochs.csv").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(TrainingError, match=r"epochs\.csv: is damaged; delete it"):
        Log(tmp_path, after=5)


def _without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find_spec: Callable[..., object] = importlib.util.find_spec

    def missing(name: str, *rest: object) -> object:
        return None if name == package else find_spec(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def test_without_matplotlib_one_line_tells_how_to_get_the_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _without(monkeypatch, "matplotlib")
    journal = Log(tmp_path)
    for number in (1, 2):
        journal.epoch(_epoch(number))
    journal.close()
    said = capsys.readouterr().err
    assert said.count("plot.png") == 1
    assert "pip install 'captioner[train]'" in said
    assert not (tmp_path / "plot.png").exists()
    assert len(_rows(tmp_path / "epochs.csv")) == 2


def test_without_tensorboard_the_tables_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(monkeypatch, "tensorboard")
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard.writer", raising=False)
    journal = Log(tmp_path)
    journal.step(1, _step(1))
    journal.epoch(_epoch(1))
    journal.close()
    assert not (tmp_path / "tensorboard").exists()
    assert len(_rows(tmp_path / "steps.csv")) == 1


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.raises(CaptionerError, match="cannot write") as raised:
        Log(tmp_path)
    assert "\n" not in str(raised.value)
