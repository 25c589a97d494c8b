from __future__ import annotations

import importlib.util
import shutil
import sys
import types
from pathlib import Path

import pytest

from captioner.errors import EvaluationError
from captioner.metrics.java import meteor, spice, why_no_spice
from tests.metrics.oracles import oracle, oracle_scores

HYPOTHESES = [["a", "dog", "runs", "on", "grass"], ["a", "|||", "cat"], []]
REFERENCES = [
    [["a", "dog", "is", "running", "on", "the", "grass"], ["the", "brown", "dog"]],
    [["two", "cats", "sleep"]],
    [["a", "man"], ["a", "woman"]],
]


def test_equals_the_oracle() -> None:
    if shutil.which("java") is None:
        pytest.skip("METEOR needs Java")
    expected, _ = oracle_scores(oracle("Meteor"), HYPOTHESES, REFERENCES)
    assert meteor(HYPOTHESES, REFERENCES) == pytest.approx(expected, abs=1e-12)


def test_without_java_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(EvaluationError, match="METEOR needs Java"):
        meteor(HYPOTHESES, REFERENCES)


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/java")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EvaluationError, match="needs the package pycocoevalcap"):
        meteor(HYPOTHESES, REFERENCES)


def test_a_program_that_ends_at_once_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    jar = tmp_path / "meteor" / "meteor-1.5.jar"
    jar.parent.mkdir()
    jar.touch()
    spec = importlib.util.spec_from_loader("pycocoevalcap", loader=None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/true")
    with pytest.raises(EvaluationError, match="ended without an answer"):
        meteor(HYPOTHESES, REFERENCES)


def test_spice_is_that_of_pycocoevalcap_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program itself needs Java 8 and a download, so its answer is made up here."""

    class Spice:
        answer: float | None = 0.25
        fault = ""

        def __init__(self) -> None:
            if self.fault:
                raise OSError(self.fault)

        def compute_score(
            self, references: dict[int, list[str]], hypotheses: dict[int, list[str]]
        ) -> tuple[float, list[object]]:
            assert references[0] == ["a dog is running on the grass", "the brown dog"]
            assert hypotheses[2] == [""]
            if self.answer is None:
                raise OSError("it ended with 1")
            return self.answer, []

    module = types.ModuleType("pycocoevalcap.spice.spice")
    module.Spice = Spice  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycocoevalcap.spice", types.ModuleType("pycocoevalcap.spice"))
    monkeypatch.setitem(sys.modules, "pycocoevalcap.spice.spice", module)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/java")
    assert why_no_spice() == ""
    assert spice(HYPOTHESES, REFERENCES) == 0.25
    Spice.answer = None
    with pytest.raises(EvaluationError, match=r"SPICE's program failed.*it ended with 1"):
        spice(HYPOTHESES, REFERENCES)
    Spice.fault = "<urlopen error [Errno -2]\nName or service not known>"
    fault = (
        r"needs the parser Stanford CoreNLP 3.6.0, which cannot be fetched \(<urlopen error \[Errno -2\] Name or .*\); "
    )
    with pytest.raises(EvaluationError, match=rf"{fault}put stanford-corenlp-3.6.0.jar and .* into .*spice.lib"):
        spice(HYPOTHESES, REFERENCES)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert why_no_spice() == "SPICE needs Java, and there is no program 'java'"
    with pytest.raises(EvaluationError, match="SPICE needs Java"):
        spice(HYPOTHESES, REFERENCES)
