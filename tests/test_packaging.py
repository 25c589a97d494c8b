"""What people install: wheel and sdist are complete and work from any folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def build(kind: str, source: Path, target: Path) -> Path:
    """Build with the project's own back end, in a process of its own as pip does."""
    target.mkdir()
    code = f"import hatchling.build; print(hatchling.build.build_{kind}({str(target)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("build") / "sdist")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, so that both are known to be complete."""
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(sdist) as archive:
        safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since 3.10.12, 3.11.4
        archive.extractall(folder, **safely)
    (source,) = folder.iterdir()
    return build("wheel", source, folder / "wheel")


def test_the_wheel_holds_package_types_and_weights_but_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "captioner/weights/captioner.safetensors" in names
    assert {"captioner/py.typed", "captioner/concepts.txt"} <= set(names)
    assert {"captioner/web/static/page.js", "captioner/web/static/style.css"} <= set(names)
    assert not [name for name in names if name.startswith("tests/")]


def test_the_wheel_captions_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(installed)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    image = ROOT / "data" / "samples" / "dogs.jpg"
    done = subprocess.run(
        [sys.executable, "-m", "captioner", "caption", str(image), "--format", "jsonl"],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    record = json.loads(done.stdout)
    assert record["image"] == str(image)
    assert record["caption"].endswith(".")
    assert list(elsewhere.iterdir()) == []


def test_the_sdist_holds_what_is_needed_to_test_it(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"Makefile", "requirements.lock", "README.md", "LICENSE", "app.py"} <= names
    assert {"weights/captioner.safetensors", "data/samples/README.md", "tests/test_packaging.py"} <= names
