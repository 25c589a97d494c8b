"""Trainings that change the encoder too, from options on the command line to the checkpoint."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from captioner.captioner import Captioner
from captioner.checkpoint import encoder_digest, load_checkpoint
from captioner.cli import main
from captioner.datasets import DatasetOptions, read_records
from captioner.errors import DatasetError, OptionError, TrainingError
from captioner.metadata import describe
from captioner.metrics.evaluate import score_captions
from captioner.model.encoder import Encoder, build_encoder
from captioner.training.folder import RunFolder, load_state
from captioner.training.options import TrainingOptions
from captioner.training.trainer import train
from captioner.weights import read_header
from tests.training import processes, shapes, worlds
from tests.training.conftest import TINY
from tests.training.runs import assert_like, assert_same_run, in_double, read_rows, run_folder

Tiny = Callable[..., TrainingOptions]

# All that could differ between a run and its resumption.
TUNED = {
    "finetune_from": "8",
    "encoder_lr": 1e-3,
    "augment": "crop",
    "checkpoint_activations": True,
    "ema": 0.9,
    "accumulate": 2,
    "batch_size": 2,
    "clip": "auto",
}


def _pretrained() -> Encoder:
    return build_encoder("efficientnet_lite0", 64, pretrained=True)


@pytest.fixture(scope="module")
def tuned(table: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingOptions:
    """A run of two epochs of six steps that nothing has disturbed."""
    output = tmp_path_factory.mktemp("tuned") / "whole.safetensors"
    options = TrainingOptions(**{"output": str(output), "cache": str(cache), **TINY, **TUNED})  # type: ignore[arg-type]
    train(DatasetOptions(dataset=(f"table:{table}",)), options)
    return options


def test_the_checkpoint_holds_an_encoder_that_was_changed_from_the_stage_on(tuned: TrainingOptions) -> None:
    before, after = _pretrained(), load_checkpoint(tuned.output).network.encoder
    assert read_header(tuned.output).encoder_digest == encoder_digest(after) != encoder_digest(before)
    statistics = [key for key in before.state_dict() if "running" in key or "tracked" in key]
    assert len(statistics) > 100
    for key in statistics:
        assert torch.equal(before.state_dict()[key].half(), after.state_dict()[key].half()), key
    for number, (old, new) in enumerate(zip(before.stages, after.stages, strict=True), 1):
        pairs = list(zip(old.parameters(), new.parameters(), strict=True))
        same = [torch.equal(one.half(), other.half()) for one, other in pairs]
        assert all(same) if number < 8 else not any(same), number


def test_the_scores_are_those_of_the_encoder_that_is_saved(tuned: TrainingOptions, datasets: DatasetOptions) -> None:
    records = read_records(datasets, "val")
    captioner = Captioner.load(run_folder(tuned).last, device="cpu", precision="fp32")
    found = captioner.caption([record.path for record in records])
    captions = {record.image_id: best.text for record, (best, *_) in zip(records, found, strict=True)}
    figures = score_captions(captions, {record.image_id: record.captions for record in records}).figures
    last = read_rows(run_folder(tuned).path / "epochs.csv")[-1]
    # Weights are stored with fewer digits than they were validated with.
    assert float(last["table BLEU-4"]) == pytest.approx(figures["BLEU-4"], abs=0.02)


def test_the_encoder_alone_can_lower_the_loss(datasets: DatasetOptions, tiny: Tiny) -> None:
    frozen_decoder = {"lr": 1e-12, "dropout": 0.0, "label_smoothing": 0.0}
    train(datasets, tiny(finetune_from="9", encoder_lr=1e-2, epochs=3, **frozen_decoder))
    losses = [float(row["loss"]) for row in read_rows(run_folder(tiny()).path / "epochs.csv")]
    assert losses[2] < losses[1] < losses[0] - 0.05


def _flags(folder: Path, name: str, table: Path, cache: Path, *more: str) -> list[str]:
    options = {**TINY, **TUNED, "output": folder / f"{name}.safetensors", "cache": cache}
    flags = [
        f"--{option.replace('_', '-')}" + ("" if value is True else f"={value}") for option, value in options.items()
    ]
    return ["train", f"--dataset=table:{table}", *flags, *more]


def test_after_kill_9_in_mid_epoch_the_run_ends_like_an_undisturbed_one(
    tuned: TrainingOptions, table: Path, cache: Path, tmp_path: Path
) -> None:
    command = _flags(tmp_path, "killed", table, cache, "--save-every=1e-6")  # after each step
    process = processes.start(processes.command, tmp_path / "log", command, 9, signal.SIGKILL)
    assert processes.finish(process) == -signal.SIGKILL
    state = load_state(run_folder(replace(tuned, output=str(tmp_path / "killed.safetensors"))).state)
    assert (state.step, state.epoch, state.batch) == (8, 1, 4)
    assert main([*command, "--resume"]) == 0
    assert_same_run(tmp_path / "killed.safetensors", tuned.output)


@pytest.mark.slow
def test_two_processes_train_the_encoder_like_one(table: Path, cache: Path, tmp_path: Path) -> None:
    one, two = (
        _flags(tmp_path, name, table, cache, "--dropout=0", "--epochs=1", "--batch-size=5") for name in ("one", "two")
    )
    with in_double():
        assert main(one) == 0
    members = worlds.start(tmp_path, worlds.train, [(two, worlds.in_double)] * 2)
    assert members.finish() == [0, 0], members.said()
    assert_like(tmp_path / "two.safetensors", tmp_path / "one.safetensors")
    weights = load_state(RunFolder(tmp_path / "one.safetensors").state).weights
    assert sum(name.startswith("encoder.") for name in weights) > 10


def test_training_goes_on_from_a_tuned_encoder_which_then_stays_as_it_is(
    tuned: TrainingOptions, datasets: DatasetOptions, tiny: Tiny
) -> None:
    digest = read_header(tuned.output).encoder_digest
    output = train(datasets, tiny(init=tuned.output, epochs=1, cache=tiny().output + ".cache"))
    assert read_header(output).encoder_digest == digest
    # Features come from the tuned encoder, and those of the pretrained one are not taken for them.
    (folder,) = (Path(tiny().output + ".cache") / "features").glob("efficientnet_lite0-*")
    captioner = Captioner.load(output, device="cpu", precision="fp32")
    (record, *_) = read_records(datasets, "train")
    expected = torch.from_numpy(captioner.encode([captioner.preprocess(record.path)])).mean(dim=1)
    rows = torch.frombuffer(bytearray((folder / "features.bin").read_bytes()), dtype=torch.float16)
    distances = (rows.view(-1, expected.shape[1]).float() - expected).abs().amax(dim=1)
    assert distances.min() < 0.01 < distances.median()
    with torch.inference_mode():
        image = captioner.preprocessing.normalise(torch.from_numpy(captioner.preprocess(record.path)).unsqueeze(0))
        assert (_pretrained()(image).mean(dim=1) - expected).abs().max() > 0.05


def test_training_the_encoder_goes_on_from_a_tuned_one(
    tuned: TrainingOptions, datasets: DatasetOptions, tiny: Tiny
) -> None:
    output = train(datasets, tiny(init=tuned.output, epochs=1, finetune_from="head", encoder_lr=1e-9))
    first, second = (load_checkpoint(path).network.encoder for path in (tuned.output, output))
    for (key, old), new in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(new, old, rtol=2e-3, atol=1e-5, msg=key)


def test_a_tuned_encoder_cannot_be_left_out_of_a_checkpoint(
    tuned: TrainingOptions, datasets: DatasetOptions, tiny: Tiny
) -> None:
    with pytest.raises(TrainingError, match=r"encoder of .* has been trained .*leave out `external_encoder`"):
        train(datasets, tiny(init=tuned.output, external_encoder=True))
    with pytest.raises(OptionError, match="`external_encoder` leaves out what `finetune_from` trains"):
        tiny(finetune_from="all", external_encoder=True)


def test_a_checkpoint_with_another_encoder_is_refused_before_images_are_read(
    tuned: TrainingOptions, tiny: Tiny
) -> None:
    nowhere = DatasetOptions(dataset=("table:/nowhere",))
    for changes in ({"image_size": 96}, {"encoder": "efficientnet_lite1"}):
        with pytest.raises(TrainingError, match=r"cannot go on from .* encoder 'efficientnet_lite0', image_size 64"):
            train(nowhere, tiny(init=tuned.output, **changes))


def test_an_untouched_encoder_stays_external_when_training_goes_on(
    datasets: DatasetOptions, tiny: Tiny, finished: TrainingOptions
) -> None:
    output = train(datasets, tiny(init=finished.output, epochs=1, external_encoder=True))
    assert not read_header(output).embedded
    assert load_checkpoint(output).digest


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"augment": "flip"}, "`augment` flip"),
        ({"checkpoint_activations": True}, "`checkpoint_activations`"),
        ({"encoder_lr": 1e-4}, "`encoder_lr` 0.0001"),
    ],
)
def test_options_of_an_encoder_in_training_need_one(tiny: Tiny, changes: dict[str, object], option: str) -> None:
    with pytest.raises(OptionError, match=f"{option} is for an encoder that is trained; .*`finetune_from`"):
        tiny(**changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [("encoder_lr", 0.0), ("encoder_lr", math.nan), ("encoder_lr", math.inf), ("augment", "rotate")],
)
def test_impossible_values_are_named_with_the_flag(tiny: Tiny, name: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"`{name}` must be .*, not {value!r}"):
        tiny(finetune_from="all", **{name: value})


def test_vectors_have_no_encoder_that_could_be_trained(tiny: Tiny) -> None:
    for encoder in ("none", "resnet18", "auto"):
        with pytest.raises(OptionError, match="`finetune_from` needs images"):
            tiny(encoder=encoder, image_size=None, finetune_from="all").with_encoder_for(vectors=True)


def test_info_lists_the_stages_to_choose_from(tuned: TrainingOptions) -> None:
    assert describe(tuned.output)["encoder stages"] == (
        "1 stem, 2 blocks1, 3 blocks2, 4 blocks3, 5 blocks4, 6 blocks5, 7 blocks6, 8 blocks7, 9 head"
    )


def test_a_stage_that_is_not_there_ends_in_one_line_with_exit_code_2(
    tmp_path: Path, table: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = _flags(tmp_path, "never", table, cache, "--finetune-from=blocks8")
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "captioner: error: --finetune-from blocks8: efficientnet_lite0 has no such stage; it has 1 stem, "
    )
    assert not list(tmp_path.glob("never*"))


def test_absent_and_broken_images_are_told_before_the_training(tiny: Tiny, tmp_path: Path) -> None:
    shapes.write_table(tmp_path / "t", 8, 4)
    images = tmp_path / "t" / "images"
    options = tiny(finetune_from="9", epochs=1)
    (images / "red-square-0.png").write_bytes((images / "red-square-0.png").read_bytes()[:50])
    (images / "red-circle-1.png").write_text("no image")
    with pytest.raises(DatasetError, match=r"2 of 12 images are broken: .*red-square-0.*`skip_missing`"):
        train(DatasetOptions(dataset=(f"table:{tmp_path}/t",)), options)
    (images / "green-square-2.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 8 images are absent .*green-square-2\.png.*`skip_missing`"):
        train(DatasetOptions(dataset=(f"table:{tmp_path}/t",)), options)
    assert not run_folder(options).path.exists()
    output = train(DatasetOptions(dataset=(f"table:{tmp_path}/t",), skip_missing=True), options)
    data = read_header(output).training["data"]
    assert isinstance(data, dict)
    assert (data["training photos"], data["broken photos"]) == (5, 2)


@pytest.mark.slow
def test_mixed_precision_trains_the_encoder(tiny: Tiny, tmp_path: Path) -> None:
    shapes.write_table(tmp_path / "t", 8, 2)
    options = tiny(precision="bf16", image_size=32, finetune_from="9", encoder_lr=1e-3, select_by="BLEU-4", epochs=1)
    output = train(DatasetOptions(dataset=(f"table:{tmp_path}/t",)), options)
    before, after = (
        network.stages[-1].parts[0]
        for network in (
            build_encoder("efficientnet_lite0", 32, pretrained=True),
            load_checkpoint(output).network.encoder,
        )
    )
    assert isinstance(before, nn.Conv2d)
    assert isinstance(after, nn.Conv2d)
    assert not torch.equal(before.weight.half(), after.weight.half())
    losses = [float(row["loss"]) for row in read_rows(run_folder(options).path / "steps.csv")]
    assert losses[-1] < losses[0]
