from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from captioner.errors import EvaluationError
from captioner.metrics.java import meteor
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
