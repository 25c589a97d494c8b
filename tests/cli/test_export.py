from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.cli import main
from captioner.runtime.export import export_graphs
from captioner.saving import save_checkpoint
from captioner.weights import read_header

pytest.importorskip("onnxscript")


@pytest.fixture
def checkpoint_file(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "small.safetensors", checkpoint)
    return tmp_path / "small.safetensors"


def test_a_checkpoint_is_prepared_in_place_and_again(
    checkpoint_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.safetensors"
    shutil.copy(checkpoint_file, path)
    assert main(["export", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("on random input, ONNX Runtime and torch differ by at most ")
    assert captured.err.splitlines()[-1] == f"wrote {path}"
    written = path.read_bytes()
    assert read_header(path).graphs is not None
    assert main(["export", str(path)]) == 0
    assert path.read_bytes() == written
    before, after = (load_checkpoint(each).network.state_dict() for each in (checkpoint_file, path))
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_the_output_may_be_another_file(checkpoint_file: Path, tmp_path: Path) -> None:
    before = checkpoint_file.read_bytes()
    assert main(["export", str(checkpoint_file), "--output", str(tmp_path / "light.safetensors")]) == 0
    assert checkpoint_file.read_bytes() == before
    assert read_header(tmp_path / "light.safetensors").graphs is not None


@pytest.mark.parametrize("reason", ["absent file", "no packages", "bfloat16"])
def test_what_cannot_be_exported_is_wrong_use(
    reason: str,
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "x.safetensors"
    said = {"absent file": "no such checkpoint", "no packages": "onnxscript is not installed; run: pip install"}
    if reason != "absent file":
        save_checkpoint(path, checkpoint, dtype=torch.bfloat16 if reason == "bfloat16" else torch.float16)
    if reason == "no packages":
        export_graphs.cache_clear()
        monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    assert main(["export", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said.get(reason, "is stored in bfloat16") in captured.err
    assert captured.err.count("\n") == 1


def test_a_runtime_that_computes_something_else_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, checkpoint)
    before = path.read_bytes()
    dark = replace(checkpoint.preprocessing, mean=(0.1, 0.1, 0.1))
    monkeypatch.setattr(
        "captioner.runtime.export.export_graphs", lambda config, _, **settings: export_graphs(config, dark, **settings)
    )
    assert main(["export", str(path)]) == 2
    assert "ONNX Runtime computes other numbers than torch" in capsys.readouterr().err
    assert path.read_bytes() == before
