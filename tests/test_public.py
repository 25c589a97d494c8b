"""The public names: complete, documented, loaded on first use; and the two older paths that still work."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import re
import subprocess
import sys

import mypy.api
import pytest

import captioner
from captioner.bulk.pipeline import caption_paths
from captioner.embed.folder import caption_folder
from captioner.metrics.evaluate import score_captions

NAMES = sorted(set(captioner.__all__) - {"__version__"})


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(captioner, name)
    assert inspect.isclass(found) or inspect.isfunction(found)
    assert inspect.getdoc(found)
    assert f"``{name}``" in (captioner.__doc__ or "")


def test_the_list_of_names_is_complete() -> None:
    assert len(set(captioner.__all__)) == len(captioner.__all__)
    assert set(re.findall("``([A-Za-z_]+)``", captioner.__doc__ or "")) == set(NAMES)
    assert set(NAMES) <= set(dir(captioner))
    star: dict[str, object] = {}
    exec("from captioner import *", star)
    assert set(captioner.__all__) <= star.keys()


def test_a_public_name_is_the_thing_itself() -> None:
    assert captioner.caption_paths is caption_paths
    assert captioner.score_captions is score_captions
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
    code = "import captioner\n" + "".join(f"captioner.{name}\n" for name in NAMES) + "captioner.nothing\n"
    said, _, status = mypy.api.run(["--config-file=", "--strict", "--follow-imports=silent", "-c", code])
    assert said.splitlines()[0].endswith('Module has no attribute "nothing"  [attr-defined]')
    assert (len(said.splitlines()), status) == (2, 1)


def test_the_earlier_path_of_the_tokenizer_still_works() -> None:
    assert importlib.import_module("captioner.metrics.tokenizer").tokenize is captioner.tokenize


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
