from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captioner.captioner import Captioner
from captioner.checkpoint import load_checkpoint
from captioner.cli import main
from captioner.datasets import DatasetOptions
from captioner.errors import EncoderError, OptionError
from captioner.model.classifier import pretrained_classifier
from captioner.saving import save_checkpoint
from captioner.training.classifier import add_classifier
from captioner.training.options import ClassifierOptions
from tests.small_model import small_checkpoint
from tests.vectors import vector_checkpoint

NAME = "efficientnet_lite0"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The small model with an encoder whose last layer has been scaled, channel by channel."""
    checkpoint = small_checkpoint(training={"note": "kept"})
    torch.manual_seed(1)
    with torch.no_grad():
        states = checkpoint.network.encoder.state_dict()
        for part in ("weight", "bias"):
            states[f"backbone.network._bn1.{part}"] *= 1.3
        states["backbone.network._bn1.bias"] += 0.1
    save_checkpoint(tmp_path / "trained.safetensors", checkpoint)
    return tmp_path / "trained.safetensors"


def options(weights: Path, cache: Path, **changes: object) -> ClassifierOptions:
    output = str(weights.parent / "named.safetensors")
    values = {"output": output, "weights": str(weights), "device": "cpu", "cache": str(cache)}
    return ClassifierOptions(**{**values, **changes})  # type: ignore[arg-type]


def test_an_encoder_that_was_not_trained_gets_its_own_classifier(checkpoint_file: Path, tmp_path: Path) -> None:
    wanted = options(checkpoint_file, tmp_path, output=str(tmp_path / "x.safetensors"), tag_threshold=0.4)
    assert add_classifier(None, wanted) is None
    before, after = load_checkpoint(checkpoint_file), load_checkpoint(tmp_path / "x.safetensors")
    assert after.classifier is not None
    assert torch.allclose(after.classifier.weight, pretrained_classifier(NAME).weight, rtol=1e-3, atol=1e-6)
    assert after.decoding == replace(before.decoding, tag_threshold=0.4)
    assert after.training == {"classifier": {"fitted": None}}
    states = after.network.state_dict()
    assert all(torch.equal(value, states[key]) for key, value in before.network.state_dict().items())


def test_a_trained_encoder_gets_a_classifier_that_says_the_same(
    trained: Path, datasets: DatasetOptions, cache: Path
) -> None:
    agreement = add_classifier(datasets, options(trained, cache))
    assert agreement is not None
    assert (agreement.images, agreement.held_out) == (24, 8)
    assert agreement.same >= 0.5
    named = load_checkpoint(trained.parent / "named.safetensors")
    assert named.training == {"note": "kept", "classifier": {"fitted": vars(agreement)}}
    assert named.decoding.tag_threshold == 0.3
    assert Captioner(named, device="cpu").tagger is not None


def test_images_are_asked_for_where_they_are_needed(trained: Path, cache: Path) -> None:
    with pytest.raises(OptionError, match="say with `dataset` on which images"):
        add_classifier(None, options(trained, cache))


def test_a_model_without_encoder_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "vectors.safetensors", vector_checkpoint())
    with pytest.raises(EncoderError, match="the classifier of none is not at hand"):
        add_classifier(None, options(tmp_path / "vectors.safetensors", tmp_path))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"output": "named"}, "`output` must be a file name that ends in .safetensors"),
        ({"output": "x.safetensors", "tag_threshold": 1.5}, "`tag_threshold` must be from 0 to 1"),
        ({"output": "x.safetensors", "tag_threshold": float("nan")}, "`tag_threshold` must be from 0 to 1"),
    ],
)
def test_impossible_options_are_refused(values: dict[str, object], match: str) -> None:
    with pytest.raises(OptionError, match=match):
        ClassifierOptions(**values)  # type: ignore[arg-type]


def test_the_command(
    trained: Path, table: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "named.safetensors"
    flags = ["--weights", str(trained), "--output", str(output), "--device=cpu", "--cache", str(cache)]
    assert main(["classifier", *flags, "--dataset", f"table:{table}"]) == 0
    out = capsys.readouterr().out
    assert "classifier: fitted on 24 images; on 8 others the same class as the pretrained one for" in out
    assert out.endswith(f"{output}\n")
    assert main(["classifier", *flags, "--weights", str(output), "--dataset", "codes", "--data", "x"]) == 2
    assert "captioner: error: " in capsys.readouterr().err
