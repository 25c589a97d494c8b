"""The public names: complete, documented, loaded on first use; and the two older paths that still work."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import captioner
from captioner.bulk.pipeline import caption_paths
from captioner.bulk.run import caption_folder
from captioner.cli import main
from captioner.metrics.evaluate import score
from tests import house

NAMES = sorted(set(captioner.__all__) - {"__version__"})


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(captioner, name)
    assert inspect.isclass(found) or inspect.isfunction(found)
    assert inspect.getdoc(found)
    assert f"``{name}``" in (captioner.__doc__ or "")


def test_the_list_of_names_is_complete() -> None:
    assert len(set(captioner.__all__)) == len(captioner.__all__)
    assert set(NAMES) == {*captioner._HOME, "load"}
    assert set(re.findall("``([A-Za-z_]+)``", captioner.__doc__ or "")) == set(NAMES)
    assert set(captioner.__all__) <= set(dir(captioner))
    star: dict[str, object] = {}
    exec("from captioner import *", star)
    assert set(captioner.__all__) <= star.keys()


def test_a_public_name_is_the_thing_itself() -> None:
    assert captioner.caption_paths is caption_paths
    assert captioner.score_captions is score
    assert not hasattr(captioner, "nothing")


def test_help_shows_every_public_name() -> None:
    shown = pydoc.plain(pydoc.render_doc(captioner))
    headings = set(re.findall(r"^    (?:class )?(\w+)(?: = \w+)?\(", shown, re.MULTILINE))
    assert set(NAMES) <= headings


def test_names_are_listed_without_loading_what_they_name() -> None:
    code = "import captioner, sys; dir(captioner); captioner.CaptionerError; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "PIL", "captioner.captioner"} & set(loaded)


def test_type_checkers_see_every_public_name() -> None:
    block = next(node for node in house.read_package()["captioner"].tree.body if isinstance(node, house.ast.If))
    imported = {
        alias.asname or alias.name: (f"{node.module}".removeprefix("captioner."), alias.name)
        for node in block.body
        if isinstance(node, house.ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {
        name: (module, captioner._NAME_THERE.get(name, name)) for name, module in captioner._HOME.items()
    }


def test_a_folder_is_captioned_with_a_loaded_model_and_resumed_by_the_command(
    checkpoint_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "images", str(tmp_path / "captions.jsonl")
    folder.mkdir()
    for side in (20, 30):
        Image.new("RGB", (side, side), (side, 0, 9)).save(folder / f"{side}.png")
    model = captioner.load(checkpoint_file, device="cpu")
    options = captioner.FolderOptions(output=output, workers=0)
    assert captioner.caption_folder([str(folder)], options, model).captioned == 2
    assert captioner.caption_folder([str(folder)], options, model).skipped == 2
    assert main(["caption", str(folder), "--output", output, "--weights", str(checkpoint_file)]) == 0
    assert "0 captioned, 2 skipped" in capsys.readouterr().err

    inside = captioner.FolderOptions(output=str(tmp_path / "copies"), embed=True, workers=0)
    assert captioner.caption_inside([str(folder)], inside, model).captioned == 2


@pytest.mark.parametrize(
    ("module", "name", "new"),
    [
        ("captioner.batch.runner", "caption_paths", caption_paths),
        ("captioner.batch.job", "caption_folder", caption_folder),
    ],
)
def test_the_paths_of_the_release_before_still_work(module: str, name: str, new: object) -> None:
    with pytest.warns(DeprecationWarning, match=rf"{module}\.{name} is now captioner\.{name}"):
        assert getattr(importlib.import_module(module), name) is new
    with pytest.raises(ImportError):
        exec(f"from {module} import nothing")


def test_the_statement_of_the_release_before_still_works() -> None:
    code = (
        "import warnings; warnings.simplefilter('error', DeprecationWarning)\n"
        "try:\n    from captioner.batch.runner import caption_paths\n"
        "except DeprecationWarning as warning:\n    print(warning)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "captioner.batch.runner.caption_paths is now captioner.caption_paths\n"
