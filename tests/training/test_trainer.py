from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from captioner.captioner import Captioner
from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.datasets import DatasetOptions, read_records
from captioner.errors import CaptionerError, EncoderError, OptionError, TrainingError
from captioner.metrics.evaluate import score_captions
from captioner.runtime.export import graphs_of, renewed_graphs
from captioner.runtime.graph import read_graphs
from captioner.training import trainer as run_module
from captioner.training.data import ValidationSet
from captioner.training.options import TrainingOptions
from captioner.training.trainer import train
from captioner.weights import read_header
from tests.training import shapes
from tests.training.runs import assert_same_run, read_rows, run_folder

Tiny = Callable[..., TrainingOptions]


def _weights(path: str | Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).network.state_dict()


def test_a_tiny_model_learns_to_name_colours_and_shapes(tmp_path: Path, tiny: Tiny) -> None:
    shapes.write_table(tmp_path / "shapes", 48, 16)
    datasets = DatasetOptions(dataset=(f"table:{tmp_path}/shapes",))
    output = train(datasets, tiny(epochs=8, batch_size=8))
    records = read_records(datasets, "val")
    captioner = Captioner.load(output, device="cpu", precision="fp32")
    captions = {
        record.image_id: best.text
        for record, (best, *_) in zip(records, captioner.caption([record.path for record in records]), strict=True)
    }
    figures = score_captions(captions, {record.image_id: record.captions for record in records}).figures
    assert figures["BLEU-4"] > 0.9
    assert figures["CIDEr"] > 6
    recorded = read_header(output).training["validation"]
    assert isinstance(recorded, dict)
    assert recorded["table BLEU-4"] == pytest.approx(figures["BLEU-4"], abs=0.05)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    finished: TrainingOptions, datasets: DatasetOptions, tiny: Tiny
) -> None:
    train(datasets, tiny("again", epochs=2))
    assert_same_run(finished.output, tiny("again", epochs=2).output)
    train(datasets, tiny("other", epochs=2, seed=1))
    ours, theirs = _weights(finished.output), _weights(tiny("other").output)
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours if key.startswith("decoder."))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key.startswith("encoder."))


def test_a_run_can_go_on_from_a_checkpoint_with_its_words(
    finished: TrainingOptions, tmp_path: Path, tiny: Tiny
) -> None:
    shapes.write_table(tmp_path / "few", 8, 4, first_seed=500)
    other = DatasetOptions(dataset=(f"table:{tmp_path}/few",))
    options = tiny(init=finished.output, epochs=1, lr=1e-9, weight_decay=0.0, min_count=3, dropout=0.0)
    header = read_header(train(other, options))
    assert header.vocabulary == read_header(finished.output).vocabulary
    ours, theirs = _weights(options.output), _weights(finished.output)
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], atol=1e-4, rtol=1e-3)
    recorded = header.training["options"]
    assert isinstance(recorded, dict)
    assert recorded["init"] == load_checkpoint(finished.output).digest


def test_adaptive_attention_can_be_added_to_a_trained_model(
    finished: TrainingOptions, datasets: DatasetOptions, tiny: Tiny
) -> None:
    added = {"attention": "adaptive", "attention_size": 16, "attention_heads": 2}
    options = tiny(init=finished.output, epochs=1, lr=1e-9, weight_decay=0.0, dropout=0.0, **added)
    train(datasets, options)
    ours, theirs = _weights(options.output), _weights(finished.output)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, atol=1e-4, rtol=1e-3)
    assert {key.split(".")[1] for key in ours.keys() - theirs.keys()} == {"attention"}
    with pytest.raises(TrainingError, match="attention 'none'"):
        train(datasets, tiny("other", init=finished.output, attention="additive", attention_size=16))


def test_another_architecture_cannot_be_gone_on_from(
    finished: TrainingOptions, datasets: DatasetOptions, tiny: Tiny
) -> None:
    with pytest.raises(TrainingError, match="hidden_size 48"):
        train(datasets, tiny(init=finished.output, hidden_size=32))


def test_the_best_epoch_is_kept_and_patience_ends_the_run(
    datasets: DatasetOptions, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = iter([0.1, 0.5, 0.3, 0.5, 0.9])

    def judged(*_: Any) -> dict[str, float]:
        return {"CIDEr": next(scores), "BLEU-4": 0.2}

    monkeypatch.setattr(ValidationSet, "score", judged)
    options = tiny(epochs=9, patience=2)
    train(datasets, options)
    assert "finished, no better score for 2 epochs; the best epoch was 2" in capsys.readouterr().err
    assert [row["score"] for row in read_rows(run_folder(options).path / "epochs.csv")] == [
        "0.1",
        "0.5",
        "0.3",
        "0.5",
    ]

    def epoch(path: Path) -> object:
        validation = read_header(path).training["validation"]
        assert isinstance(validation, Mapping)
        return validation["epoch"]

    assert epoch(Path(options.output)) == 2
    assert epoch(run_folder(options).last) == 4


@pytest.mark.parametrize("metric", ["CIDEr", "BLEU-4"])
def test_the_mean_over_data_sets_of_the_chosen_metric_decides(
    tmp_path: Path, table: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    shapes.write_flickr8k(tmp_path / "flickr", 4, 2, first_seed=40)
    figures = {
        "table": iter([(0.2, 0.1), (0.4, 0.2), (0.1, 0.9)]),
        "flickr8k": iter([(0.2, 0.1), (0.2, 0.2), (0.2, 0.1)]),
    }

    def judged(part: ValidationSet, *_: Any) -> dict[str, float]:
        return dict(zip(("CIDEr", "BLEU-4"), next(figures[part.label]), strict=True))

    monkeypatch.setattr(ValidationSet, "score", judged)
    options = tiny(epochs=3, select_by=metric)
    train(DatasetOptions(dataset=(f"table:{table}", f"flickr8k:{tmp_path}/flickr")), options)
    rows = read_rows(run_folder(options).path / "epochs.csv")
    means = {"CIDEr": [0.2, 0.3, 0.15], "BLEU-4": [0.1, 0.2, 0.5]}[metric]
    assert [float(row["score"]) for row in rows] == pytest.approx(means)
    assert [float(row["table CIDEr"]) for row in rows] == [0.2, 0.4, 0.1]
    validation = read_header(options.output).training["validation"]
    assert isinstance(validation, Mapping)
    assert validation["epoch"] == {"CIDEr": 2, "BLEU-4": 3}[metric]


def test_the_log_tells_every_step_and_epoch(finished: TrainingOptions) -> None:
    folder = run_folder(finished)
    steps = read_rows(folder.path / "steps.csv")
    assert [int(row["step"]) for row in steps] == list(range(1, 13))
    assert [int(row["epoch"]) for row in steps] == [1] * 6 + [2] * 6
    assert float(steps[-1]["loss"]) < float(steps[0]["loss"])
    assert float(steps[-1]["lr"]) < 2e-4
    for row in steps:
        assert row["clipped"] == str(int(float(row["gradient_norm"]) > 5))
        assert row["threshold"] == "5"
        assert row["skipped"] == "0"
    epochs = read_rows(folder.path / "epochs.csv")
    assert list(epochs[0]) == [
        *("epoch", "step", "loss", "clipped", "skipped", "score", "table BLEU-4", "table CIDEr"),
        *("table bad endings", "table repeated bigrams", "table named twice"),
        *("table mean length", "table distinct words"),
    ]
    assert [row["score"] for row in epochs] == [row["table CIDEr"] for row in epochs]


def test_the_checkpoint_tells_how_it_came_about_but_not_where(
    finished: TrainingOptions, table: Path, cache: Path
) -> None:
    training = read_header(finished.output).training
    options, data, validation = training["options"], training["data"], training["validation"]
    assert isinstance(options, dict)
    assert isinstance(data, dict)
    assert isinstance(validation, dict)
    assert options["seed"] == 0
    assert options["lr"] == 1e-2
    assert not {"output", "cache", "device"} & set(options)
    assert data["datasets"] == ["table: 24 photos"]
    assert data["training captions"] == 48
    assert {"epoch", "loss", "table CIDEr", "table BLEU-4"} <= set(validation)
    assert str(training["date"])[:2] == "20"
    assert isinstance(training["versions"], dict)
    assert set(training["versions"]) == {"captioner", "torch", "torchvision", "python"}
    # The data sets are named as they were given; all else could have been done anywhere.
    text = json.dumps({name: value for name, value in training.items() if name != "datasets"})
    assert str(table) not in text
    assert str(cache) not in text


def test_mixed_precision_trains(datasets: DatasetOptions, tiny: Tiny) -> None:
    options = tiny(precision="bf16", epochs=1)
    train(datasets, options)
    losses = [float(row["loss"]) for row in read_rows(run_folder(options).path / "steps.csv")]
    assert losses[-1] < losses[0]
    # Computed in bfloat16, but the weights themselves stay whole.
    weights = load_checkpoint(options.output).network.decoder.state_dict()["embedding.weight"]
    assert not torch.equal(weights, weights.bfloat16().float())


@pytest.mark.parametrize(
    "changes",
    [
        {"cell": "gru", "tie_embeddings": False, "embedding_size": 20},
        {"attention": "additive", "attention_size": 16, "resize": "crop", "external_encoder": True},
        {"attention": "adaptive", "attention_size": 16, "attention_heads": 4, "attention_spread": 1.0},
        {"cell": "rnn", "nonlinearity": "sigmoid", "layers": 2, "residual_layers": True},
    ],
)
def test_other_architectures_train_and_load(
    datasets: DatasetOptions, tiny: Tiny, table: Path, changes: dict[str, object]
) -> None:
    options = tiny(epochs=1, **changes)
    train(datasets, options)
    checkpoint = load_checkpoint(options.output)
    for name, value in changes.items():
        if name not in ("resize", "external_encoder", "attention_spread"):
            assert getattr(checkpoint.network.config, name) == value
    assert checkpoint.preprocessing.resize == options.resize
    assert Captioner(checkpoint, device="cpu").caption([next((table / "images").iterdir())])


def test_what_cannot_work_is_refused_before_any_image_is_read(
    datasets: DatasetOptions, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise AssertionError("images are read")

    monkeypatch.setattr(run_module, "prepare", unreachable)
    monkeypatch.setattr(run_module, "read_splits", unreachable)
    failures: list[tuple[dict[str, object], type[CaptionerError], str]] = [
        ({"encoder": "resnet51"}, EncoderError, "resnet51.*did you mean resnet50"),
        ({"device": "toaster"}, OptionError, "device 'toaster'"),
        ({"precision": "fp8"}, OptionError, "`precision` must be"),
        ({"output": str(tmp_path / "absent" / "x.safetensors")}, TrainingError, "no such folder"),
    ]
    for changes, kind, message in failures:
        with pytest.raises(kind, match=message):
            train(datasets, tiny(**changes))
    assert list(tmp_path.iterdir()) == []


def test_both_checkpoints_hold_what_onnx_runtime_computes(datasets: DatasetOptions, tiny: Tiny) -> None:
    asked: list[str] = []

    def export(checkpoint: Checkpoint, say: Callable[[str], None], *, encoder: bool) -> str | None:
        asked.append(checkpoint.network.config.cell)
        return graphs_of(checkpoint, say, encoder=encoder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "graphs_of", export)
        options = tiny()
        output = train(datasets, options)
    assert asked == ["lstm"]  # once for all epochs
    for path in (output, run_folder(options).last):
        header = read_header(path)
        assert read_graphs(header.graphs or "", header.config, header.shapes).keys() == {"begin", "step", "encoder"}
        _, difference = renewed_graphs(path)
        assert difference <= 1e-4
