"""A small part of ``benchmarks/damaged.py``: every damaged file is captioned or refused, with a record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from captioner.bulk.options import FolderOptions
from captioner.bulk.run import caption_folder
from tests.bulk import fakes

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_each_damaged_file_has_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from fuzz import make_damaged

    monkeypatch.setattr("captioner.engine.Engine", fakes.ColourEngine)
    folder, output = tmp_path / "images", tmp_path / "captions.jsonl"
    make_damaged(folder, 120, ROOT / "data" / "samples", seed=0, pool=1)
    options = FolderOptions(output=str(output), workers=1)
    summary = caption_folder([str(folder)], options, fakes.colour_model())
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted(record["image"] for record in records) == sorted(str(p) for p in folder.rglob("*") if p.is_file())
    assert all(bool(record.get("caption")) != bool(record.get("error")) for record in records)
    assert summary.captioned + summary.failed == 120
    assert 12 < summary.captioned < 108
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == summary.failed
    assert all(line.startswith("captioner: ") for line in lines)
