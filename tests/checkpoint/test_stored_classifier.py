from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.metadata import describe
from captioner.model.classifier import pretrained_classifier
from captioner.saving import save_checkpoint
from captioner.weights import read_header
from tests.checkpoint.altering import assert_refused, load_tensors, split


@pytest.fixture
def with_classifier(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, classifier=pretrained_classifier("efficientnet_lite0"))


@pytest.mark.parametrize("external", [False, True])
def test_a_classifier_comes_back_as_it_was(with_classifier: Checkpoint, tmp_path: Path, external: bool) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, with_classifier, dtype=torch.float32, external_encoder=external)
    assert describe(path)["classifier"] == "ImageNet"
    read, written = load_checkpoint(path).classifier, with_classifier.classifier
    assert read is not None
    assert written is not None
    assert not read.training
    assert not read.weight.requires_grad
    assert torch.equal(read.weight, written.weight)
    assert torch.equal(read.bias, written.bias)
    save_checkpoint(path, with_classifier)
    assert read_header(path).dtypes["classifier.weight"] == "F16"
    stored = load_checkpoint(path).classifier
    assert stored is not None
    assert stored.weight.dtype == torch.float32
    assert torch.allclose(stored.weight, written.weight, rtol=1e-3, atol=1e-6)


def test_without_classifier_there_is_none(checkpoint_file: Path) -> None:
    assert load_checkpoint(checkpoint_file).classifier is None
    assert describe(checkpoint_file)["classifier"] == "none"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda parts: {"bias": parts["bias"]}, "1 tensors are absent or superfluous"),
        (lambda parts: {"weight": parts["weight"]}, "1 tensors are absent or superfluous"),
        (lambda parts: {**parts, "scale": parts["bias"].clone()}, "1 tensors are absent or superfluous"),
        (lambda parts: {**parts, "bias": parts["bias"][:-1]}, "classifier.bias has shape"),
        (lambda parts: {**parts, "weight": parts["weight"][:, :-1]}, "classifier.weight has shape"),
        (lambda parts: {**parts, "bias": parts["bias"].long()}, "numbers of the wrong type"),
        (lambda parts: {**parts, "bias": parts["bias"] / 0}, "classifier.bias holds values"),
    ],
)
def test_a_damaged_classifier_is_refused(
    checkpoint_file: Path, tmp_path: Path, change: Callable[..., dict[str, torch.Tensor]], match: str
) -> None:
    classifier = pretrained_classifier("efficientnet_lite0")
    parts = change({"weight": classifier.weight, "bias": classifier.bias})
    tensors = load_tensors(checkpoint_file)
    tensors |= {f"classifier.{name}": part.contiguous() for name, part in parts.items()}
    header, _ = split(checkpoint_file)
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(tensors, header["__metadata__"]))
    assert_refused(path, match)
