"""The rules of docs/architecture.md that a program can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "captioner"

# Floor of each module, by the first part of its name below the package.
FLOORS = {
    "errors": 1,
    "options": 1,
    "files": 1,
    "interrupt": 1,
    "model": 2,
    "images": 2,
    "metadata": 2,
    "pages": 2,
    "vocabulary": 2,
    "confidence": 2,
    "plots": 2,
    "datasets": 3,
    "decoding": 3,
    "checkpoint": 3,
    "header": 3,
    "devices": 3,
    "weights": 3,
    "tags": 3,
    "captioner": 4,
    "caption": 4,
    "scoring": 4,
    "metrics": 4,
    "features": 4,
    "likelihood": 4,
    "explanation": 5,
    "training": 5,
    "gradients": 5,
    "search": 5,
    "batch": 5,
    "calibration": 5,
    "evaluation": 5,
    "download": 5,
    "web": 6,
    "cli": 7,
    "__main__": 7,
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name for name in names if name.startswith("captioner.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_from_its_own_floor_or_below(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if own == "__init__":
        return  # the public face names what it offers
    for name in imported(path):
        assert FLOORS[name.split(".")[1]] <= FLOORS[own], name


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("captioner", {"torch", "gradio", "nltk", "numpy", "PIL"}),
        ("captioner.cli", {"torch", "gradio", "nltk"}),
        ("captioner.metrics.evaluate", {"torch", "gradio", "nltk", "PIL"}),
        ("captioner.datasets", {"torch", "gradio", "nltk", "numpy"}),
        ("captioner.images", {"torch", "torchvision", "gradio"}),
        ("captioner.captioner", {"gradio", "matplotlib", "torchvision", "nltk"}),
        ("captioner.batch.ray_steps", {"torch", "ray"}),
    ],
)
def test_importing_a_module_does_not_import_what_it_does_not_need(module: str, forbidden: set[str]) -> None:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not forbidden & set(loaded.stdout.split())


def test_tests_mirror_the_package() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders <= {path.name for path in (ROOT / "tests").iterdir()}
