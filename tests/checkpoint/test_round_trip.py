from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from captioner.checkpoint import Checkpoint, encoder_digest, load_checkpoint
from captioner.metadata import describe
from captioner.saving import save_checkpoint
from captioner.vocabulary import Vocabulary
from captioner.weights import read_header
from tests.checkpoint.altering import DECODER_BIAS, RUNNING_VAR, assert_refused, captions, load_tensors, split
from tests.small_model import small_checkpoint


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"cell": "gru", "attention": "additive"},
        {"attention": "adaptive", "attributes": 4},
        {"tie_embeddings": False},
        {"attention": "additive", "tie_embeddings": False},
    ],
    ids=str,
)
def test_a_checkpoint_comes_back_as_it_was(variant: dict[str, Any], tmp_path: Path, images: list[Path]) -> None:
    training = {"data": ["flickr8k", "caf\u00e9 \udcff"], "figures": {"CIDEr": 0.5}}
    written = small_checkpoint(**variant, training=training)
    save_checkpoint(tmp_path / "x.safetensors", written, dtype=torch.float32)
    read = load_checkpoint(tmp_path / "x.safetensors")
    assert replace(read, network=written.network, digest="") == written
    assert read.network.config == written.network.config
    assert not read.network.training
    before, after = written.network.state_dict(), read.network.state_dict()
    assert before.keys() == after.keys()
    counters = {key for key, value in before.items() if not value.is_floating_point()}
    assert all(torch.equal(before[key], after[key]) for key in before.keys() - counters)
    assert captions(read, images) == captions(written, images)


def test_tied_embeddings_are_stored_once_and_stay_tied(checkpoint_file: Path) -> None:
    assert "decoder.output.weight" not in read_header(checkpoint_file).shapes
    decoder = load_checkpoint(checkpoint_file).network.decoder
    assert decoder.output.weight is decoder.embedding.weight


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "F16"), (torch.bfloat16, "BF16")])
def test_weights_are_stored_small_and_storing_again_changes_nothing(
    checkpoint: Checkpoint, dtype: torch.dtype, name: str, tmp_path: Path, images: list[Path]
) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_checkpoint(first, checkpoint, dtype=dtype)
    assert name in read_header(first).dtypes.values()
    assert "F32" not in read_header(first).dtypes.values()
    once = load_checkpoint(first)
    assert all(value.dtype == torch.float32 for value in once.network.parameters())
    save_checkpoint(second, once, dtype=dtype)
    assert split(first)[1] == split(second)[1]
    assert captions(load_checkpoint(second), images) == captions(once, images)


def test_a_tensor_that_float16_cannot_hold_stays_float32(tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    variance = checkpoint.network.state_dict()[RUNNING_VAR]
    variance[0] = 1e6
    save_checkpoint(tmp_path / "x.safetensors", checkpoint)
    dtypes = read_header(tmp_path / "x.safetensors").dtypes
    assert [key for key, dtype in dtypes.items() if dtype == "F32"] == [RUNNING_VAR]
    network = load_checkpoint(tmp_path / "x.safetensors").network
    assert torch.equal(network.state_dict()[RUNNING_VAR], variance)


def test_float64_weights_are_read_as_float32(checkpoint_file: Path, tmp_path: Path) -> None:
    tensors = load_tensors(checkpoint_file)
    tensors[DECODER_BIAS] = tensors[DECODER_BIAS].double()
    (tmp_path / "x.safetensors").write_bytes(save(tensors, split(checkpoint_file)[0]["__metadata__"]))
    bias = load_checkpoint(tmp_path / "x.safetensors").network.decoder.output.bias
    assert torch.equal(bias, tensors[DECODER_BIAS].float())


def test_an_external_encoder_is_left_out_and_found_again(
    checkpoint: Checkpoint, tmp_path: Path, images: list[Path]
) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, checkpoint, dtype=torch.float32, external_encoder=True)
    header = read_header(path)
    assert all(key.startswith("decoder.") for key in header.shapes)
    assert not header.embedded
    assert header.encoder_digest == encoder_digest(checkpoint.network.encoder)
    assert captions(load_checkpoint(path), images) == captions(checkpoint, images)


def test_an_external_encoder_with_other_weights_is_refused(tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    checkpoint.network.state_dict()[RUNNING_VAR][0] += 1
    save_checkpoint(tmp_path / "x.safetensors", checkpoint, external_encoder=True)
    assert_refused(tmp_path / "x.safetensors", "other weights of efficientnet_lite0")


def test_the_digest_of_an_encoder_survives_storage_as_float16(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", checkpoint, dtype=torch.float16)
    network = load_checkpoint(tmp_path / "x.safetensors").network
    assert encoder_digest(network.encoder) == encoder_digest(checkpoint.network.encoder)


def test_a_word_that_is_no_text_survives(tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    words = (*checkpoint.vocabulary.words[:-1], "\U0001f984 \udcff\n")
    save_checkpoint(tmp_path / "x.safetensors", replace(checkpoint, vocabulary=Vocabulary(words)))
    assert load_checkpoint(tmp_path / "x.safetensors").vocabulary.words == words


def test_what_a_person_wants_to_know(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, replace(checkpoint, training={"date": "2026-01-01"}))
    told = describe(path)
    assert told["file"] == str(path)
    assert told["bytes"] == path.stat().st_size
    assert told["digest"] == load_checkpoint(path).digest
    assert told["parameters"] == sum(value.numel() for value in checkpoint.network.parameters())
    assert told["stored as"] == "F16, I64"
    assert told["encoder"] == "embedded"
    assert told["model"] == asdict(checkpoint.network.config)
    assert told["vocabulary"] == "34 words"
    assert told["training"] == {"date": "2026-01-01"}
    save_checkpoint(path, checkpoint, external_encoder=True)
    assert describe(path)["encoder"] == f"external, digest {encoder_digest(checkpoint.network.encoder)}"
