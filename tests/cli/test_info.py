from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from captioner.checkpoint import Checkpoint
from captioner.cli import main
from captioner.metadata import describe
from captioner.saving import save_checkpoint


def test_the_text_names_what_is_inside(checkpoint_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(checkpoint_file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"file: {checkpoint_file}" in lines
    assert "vocabulary: 34 words" in lines
    assert "  encoder: efficientnet_lite0" in lines
    assert "  mean: [0.4980392156862745, 0.4980392156862745, 0.4980392156862745]" in lines


def test_json_is_one_object_with_the_same(checkpoint_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(checkpoint_file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == describe(checkpoint_file)


def test_without_torch_all_is_told_but_the_stages_of_the_encoder(
    checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = describe(checkpoint_file)
    assert str(told.pop("encoder stages")).startswith("1 stem, ")
    monkeypatch.setitem(sys.modules, "captioner.checkpoint", None)  # as where torch cannot be imported
    assert describe(checkpoint_file) == told


def test_a_summary_from_elsewhere_cannot_play_with_the_terminal(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.safetensors"
    training = {"a\x1b[2J": "b\nc\x1b]0;x\x07", "list": ["\x1b"], "\udcff": "caf\u00e9"}
    save_checkpoint(path, replace(checkpoint, training=training))
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert "  a\\x1b[2J: b\\nc\\x1b]0;x\\x07\n" in out
    assert "  \\udcff: caf\u00e9\n" in out


@pytest.mark.parametrize("content", [None, b"", b"x" * 1000], ids=["absent", "empty", "rubbish"])
def test_a_file_that_is_no_checkpoint_is_wrong_use(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x\n.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert main(["info", str(path), "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"captioner: error: {tmp_path}/x\\n.safetensors: ")
    assert captured.err.count("\n") == 1
