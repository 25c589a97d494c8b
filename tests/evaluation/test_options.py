from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from captioner.errors import OptionError
from captioner.evaluation.options import CalibrationOptions


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"output": "."}, "`output` .: is a folder"),
        ({"output": "absent/x.safetensors"}, "there is no folder absent"),
        ({"plot": "absent/x.png"}, "`plot` absent/x.png: there is no folder absent"),
        ({"plot": "x.gif"}, "`plot` must end in .png, .svg, .pdf, not 'x.gif'"),
        ({"plot": "x.png", "output": "x.png"}, "`output` and `plot` are one file"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(map(str, value.values())),
)
def test_files_that_cannot_be_written_are_refused_before_the_work(
    values: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=message):
        CalibrationOptions(**values)


def test_without_matplotlib_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install 'captioner\[train\]', or leave out `plot`"):
        CalibrationOptions(plot="x.png")
    assert CalibrationOptions().plot is None
