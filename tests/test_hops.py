"""How many modules an image passes from the command line to its sentence."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from captioner.captioner import Captioner
from captioner.cli import main
from tests.hops import passed
from tests.house import ROOT

MOST = 27


def test_an_image_passes_few_modules(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Counted from where the model is loaded; the first run imports and compiles what it needs."""
    image = str(ROOT / "data" / "samples" / "dogs.jpg")
    assert main(["caption", image]) == 0
    modules: set[str] = set()
    load = Captioner.load

    with ExitStack() as stack:

        def loaded(*arguments: Any, **named: Any) -> Captioner:
            captioner = load(*arguments, **named)
            stack.enter_context(passed(modules))
            return captioner

        monkeypatch.setattr(Captioner, "load", loaded)
        assert main(["caption", image]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert {"captioner.images.open", "captioner.captioner", "captioner.vocabulary"} <= modules
    assert len(modules) <= MOST, " ".join(sorted(modules))
