from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.saving import save_checkpoint
from tests.checkpoint.altering import DECODER_BIAS, RUNNING_VAR, assert_refused, load_tensors, split


def test_an_encoder_with_other_channels_than_the_decoder_takes_is_refused(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, checkpoint)
    header, _ = split(path)
    config = json.loads(header["__metadata__"]["config"]) | {"channels": 7}
    header["__metadata__"]["config"] = json.dumps(config)
    tensors = load_tensors(path)
    tensors["decoder.initial.weight"] = tensors["decoder.initial.weight"][:, :7].contiguous()
    path.write_bytes(save(tensors, header["__metadata__"]))
    assert_refused(path, "takes 7 channels, efficientnet_lite0 gives 1280")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda tensors: tensors.pop(DECODER_BIAS),
            rf"1 tensors are absent or superfluous, such as '{DECODER_BIAS}'",
        ),
        (lambda tensors: tensors.pop(RUNNING_VAR), "absent or superfluous"),
        (
            lambda tensors: tensors.update({"decoder.extra": torch.zeros(1)}),
            "superfluous, such as 'decoder.extra'",
        ),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "'extra', which is not part"),
        (lambda tensors: tensors.update({"x" * 999 + "\n": torch.zeros(1)}), "not part of its model"),
        (
            lambda tensors: tensors.update({DECODER_BIAS: torch.zeros(34, dtype=torch.int64)}),
            "wrong type, I64",
        ),
        (
            lambda tensors: tensors.update({DECODER_BIAS: torch.zeros(34, dtype=torch.bool)}),
            "wrong type, BOOL",
        ),
        (
            lambda tensors: tensors.update({DECODER_BIAS: torch.zeros(34, dtype=torch.float8_e4m3fn)}),
            "wrong type, F8_E4M3",
        ),
        (lambda tensors: tensors.update({DECODER_BIAS: torch.zeros(34, 1)}), r"\(34, 1\)"),
        (lambda tensors: tensors.update({DECODER_BIAS: torch.zeros(0)}), "has shape"),
    ],
)
def test_other_tensors_than_those_of_the_model_are_refused(
    checkpoint_file: Path, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], match: str
) -> None:
    header, _ = split(checkpoint_file)
    tensors = load_tensors(checkpoint_file)
    change(tensors)
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(tensors, header["__metadata__"]))
    assert_refused(path, match)


def test_damaged_counters_and_index_tables_do_no_harm(checkpoint_file: Path, tmp_path: Path) -> None:
    tensors = load_tensors(checkpoint_file)
    counter = next(key for key in tensors if key.endswith("num_batches_tracked"))
    tensors[counter] = torch.tensor(-(1 << 62))
    (tmp_path / "x.safetensors").write_bytes(save(tensors, split(checkpoint_file)[0]["__metadata__"]))
    assert load_checkpoint(tmp_path / "x.safetensors").network.state_dict()[counter] == 0
