from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from captioner.cli import build_parser, main
from captioner.interrupt import Interrupted
from captioner.training import trainer
from captioner.training.folder import Log
from captioner.training.options import TrainingOptions
from tests.training import shapes

Train = Callable[..., int]

TINY = [
    "--encoder=efficientnet_lite0",
    "--image-size=64",
    "--hidden-size=32",
    "--embedding-size=32",
    "--min-count=1",
    "--epochs=1",
    "--batch-size=8",
    "--device=cpu",
    "--precision=fp32",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def train(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Runs ``captioner train`` with flags for a run of a second; later flags win."""
    monkeypatch.setattr(Log, "_plot", lambda _journal: None)
    monkeypatch.setattr(trainer, "graphs_of", lambda *_, **__: None)

    def run(*flags: str) -> int:
        places = ["--output", str(tmp_path / "model.safetensors"), "--cache", str(cache)]
        return main(["train", *TINY, *places, *flags])

    return run


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that tells what is wrong."""
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("captioner: error: ")]
    assert len(lines) == 1
    assert captured.err.endswith(f"{lines[0]}\n")
    return lines[0]


@pytest.mark.parametrize("kind", ["flickr8k", "karpathy", "coco", "table"])
def test_every_kind_of_data_set_trains(
    tmp_path: Path, train: Train, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    getattr(shapes, f"write_{kind}")(tmp_path / "data", 8, 4)
    assert train("--dataset", kind, "--data", str(tmp_path / "data")) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'model.safetensors'}\n"
    assert f"datasets: {kind}: 8 photos" in captured.err
    assert f"validation: {kind}: 4 photos" in captured.err
    assert "epoch 1: loss " in captured.err


def test_ones_own_images_train_from_a_table_and_a_folder(
    tmp_path: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    table = shapes.write_table(tmp_path / "data", 20, suffix=".jsonl")
    images = (tmp_path / "data" / "images").rename(tmp_path / "photos")
    flags = ["--dataset=table", f"--annotations={table}", f"--images={images}", "--holdout=0.25"]
    assert train(*flags) == 0
    said = capsys.readouterr().err
    assert "training photos: 15" in said
    assert "validation: table: 5 photos" in said


def test_a_small_table_trains_with_default_options(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Log, "_plot", lambda _journal: None)
    monkeypatch.setattr(trainer, "graphs_of", lambda *_, **__: None)
    shapes.write_table(tmp_path / "data", 24)
    command = ["train", "--dataset=table", f"--data={tmp_path}/data", "--device=cpu", f"--cache={cache}"]
    command += [*TINY[:2], f"--output={tmp_path}/model.safetensors"]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "training photos: 22" in said
    assert "validation: table: 2 photos" in said
    assert main([*command, "--resume"]) == 0
    assert "nothing to do, " in capsys.readouterr().err
    assert main([*command, "--resume", "--select-by=CIDEr"]) == 0
    capsys.readouterr()
    assert main([*command, "--resume", "--select-by=BLEU-4"]) == 2
    assert "select_by was CIDEr, is now BLEU-4" in _error(capsys)
    assert main(["info", str(tmp_path / "model.safetensors"), "--config"]) == 0
    assert '\nselect-by = "CIDEr"\n' in capsys.readouterr().out


@pytest.mark.parametrize(("images", "flags"), [(2, []), (3, []), (5, ["--select-by=CIDEr"]), (10, [])])
def test_even_smaller_tables_train(
    tmp_path: Path, train: Train, capsys: pytest.CaptureFixture[str], images: int, flags: list[str]
) -> None:
    shapes.write_table(tmp_path / "data", images)
    assert train(f"--dataset=table:{tmp_path}/data", *flags) == 0
    said = capsys.readouterr().err
    assert ("best epoch: chosen by BLEU-4" in said) == (images < 4)


@pytest.mark.parametrize(
    ("images", "flags", "message"),
    [
        (1, [], "no captioned image in the split 'val'; it needs at least two images"),
        (2, ["--select-by=CIDEr"], "CIDEr of a single image is always 0; take more images"),
        (2, ["--min-count=9"], "no word occurs 9 times in the training captions; lower --min-count"),
        (24, ["--holdout=0"], "it needs at least two images, and --holdout above 0, or rows that say val"),
    ],
)
def test_tables_that_cannot_be_trained_on_say_what_to_do(
    tmp_path: Path,
    train: Train,
    capsys: pytest.CaptureFixture[str],
    images: int,
    flags: list[str],
    message: str,
) -> None:
    shapes.write_table(tmp_path / "data", images)
    assert train(f"--dataset=table:{tmp_path}/data", *flags) == 2
    assert message in _error(capsys)


def test_several_data_sets_train_together_and_info_tells_of_it(
    tmp_path: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes.write_flickr8k(tmp_path / "one", 8, 4)
    shapes.write_table(tmp_path / "two", 6, 3, first_seed=20)
    assert train("--dataset", f"flickr8k:{tmp_path}/one", "--dataset", f"table:{tmp_path}/two") == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "model.safetensors"), "--json"]) == 0
    training = json.loads(capsys.readouterr().out)["training"]
    assert training["data"]["datasets"] == ["flickr8k: 8 photos", "table: 6 photos"]
    assert training["data"]["validation"] == ["flickr8k: 4 photos", "table: 3 photos"]
    assert training["options"]["hidden_size"] == 32
    assert {"flickr8k CIDEr", "table CIDEr", "flickr8k BLEU-4", "table BLEU-4"} <= set(training["validation"])
    assert main(["info", str(tmp_path / "model.safetensors")]) == 0
    assert "flickr8k: 8 photos" in capsys.readouterr().out


def test_every_option_of_a_training_is_a_flag() -> None:
    values = {"output": "x.safetensors", "resize": "crop", "cell": "gru", "attention": "additive"}
    values |= {
        "select_by": "BLEU-4",
        "device": "cpu",
        "precision": "fp32",
        "encoder": "resnet18",
        "augment": "crop",
        "objective": "self_critical",
        "nonlinearity": "sigmoid",
        "cache": "c",
    }
    arguments = ["train", "--dataset=coco:D"]
    for item in fields(TrainingOptions):
        flag = "--" + item.name.replace("_", "-")
        if isinstance(item.default, bool):
            arguments.append(flag.replace("--", "--no-", 1) if item.default else flag)
        else:
            arguments.append(f"{flag}={values.get(item.name, '7')}")
    args = build_parser().parse_args(arguments)
    for item in fields(TrainingOptions):
        value = getattr(args, item.name)
        assert value is not None
        assert value != item.default or item.name in ("cache", "device")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs=0"], "--epochs must be a whole number from 1"),
        (["--lr=nan"], "--lr must be above 0 and finite, not nan"),
        (["--dropout=1"], "dropout must be at least 0 and below 1"),
        (["--hidden-size=0"], "--hidden-size must be a whole number"),
        (["--output=model.bin"], "output must be a file name that ends in .safetensors"),
        (["--encoder=resnet51"], "no encoder is called 'resnet51'"),
        (["--clip=norm:0"], "--clip must have a limit above 0 and finite after norm:, not 'norm:0'"),
        (["--nonlinearity=sigmoid"], "--nonlinearity is a choice of the cell rnn"),
        (["--image-size=16"], "at least 32 px"),
        (["--device=toaster"], "device 'toaster' is not available"),
        (["--resume", "--overwrite"], "give one of them"),
        (["--dataset=imagenet:D"], "unknown kind 'imagenet'"),
        (["--data=D"], "names a folder already"),
        (["--min-count=99999"], "no word occurs 99999 times"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    tmp_path: Path, train: Train, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    shapes.write_table(tmp_path / "data", 4, 2)
    assert train(f"--dataset=table:{tmp_path}/data", *flags) == 2
    assert message in _error(capsys)
    assert not (tmp_path / "model.run").exists()


@pytest.mark.parametrize("flag", ["--epochs=some", "--cell=transformer", "--select-by=METEOR", "--unknown=1"])
def test_a_flag_that_cannot_be_read_is_exit_code_2(train: Train, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        train("--dataset=table:D", flag)
    assert stopped.value.code == 2
    assert flag.split("=")[0] in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("missing", ["output", "dataset"])
def test_what_must_be_given_is_asked_for(capsys: pytest.CaptureFixture[str], missing: str) -> None:
    flags = {"output": "--output=x.safetensors", "dataset": "--dataset=coco:D"}
    del flags[missing]
    assert main(["train", *flags.values()]) == 2
    assert f"--{missing} is missing" in _error(capsys)


def test_an_earlier_run_is_refused_resumed_or_replaced(
    tmp_path: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes.write_table(tmp_path / "data", 4, 2)
    data = f"--dataset=table:{tmp_path}/data"
    assert train(data) == 0
    capsys.readouterr()
    assert train(data) == 2
    assert "--resume goes on with it, --overwrite replaces it" in _error(capsys)
    assert train(data, "--resume") == 0
    assert "nothing to do, all 1 epochs are done" in capsys.readouterr().err
    assert train(data, "--overwrite") == 0
    assert "epoch 1: loss" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("interruption", "flags", "hint"),
    [
        (Interrupted("saved"), [], "saved; to go on, give the same command with --resume\n"),
        (
            Interrupted("saved"),
            ["--overwrite"],
            "saved; to go on, give the same command with --resume instead of --overwrite\n",
        ),
        (
            KeyboardInterrupt(),
            ["--overwrite"],
            "encoded so far are kept; to go on, give the same command again\n",
        ),
    ],
)
def test_an_interrupt_tells_how_to_go_on(
    train: Train,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    interruption: KeyboardInterrupt,
    flags: list[str],
    hint: str,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise interruption

    monkeypatch.setattr(trainer, "train", interrupted)
    assert train("--dataset=table:D", *flags) == 130
    assert capsys.readouterr().err.endswith(hint)
