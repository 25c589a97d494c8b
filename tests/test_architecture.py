"""The rules of docs/architecture.md that a program can check."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import house

MODULES = house.read_package()
IMPORTS = house.imports(MODULES)
HEART = house.heart(IMPORTS)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_from_lower_floors_only(name: str) -> None:
    room = MODULES[name].room
    if not room:
        return  # the public face names what it offers
    others = {MODULES[other].room for other in IMPORTS[name]} - {room}
    assert {other for other in others if house.FLOOR[other] >= house.FLOOR[room]} == set()


def test_public_names_count_as_imports_of_the_modules_behind_them() -> None:
    assert "captioner.decoding.options" in IMPORTS["captioner.cli.caption"]  # it reads captioner.DecodingOptions


def test_there_are_no_circles() -> None:
    assert house.circles(IMPORTS) == []
    assert house.circles(house.rooms(MODULES)) == []


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"f"}, "f": {"e"}}
    assert sorted(map(sorted, house.circles(graph))) == [["b", "c"], ["e", "f"]]


def test_the_house_is_small() -> None:
    assert len(MODULES) <= 160
    assert sum(module.lines for module in MODULES.values()) <= 29_300
    assert house.import_share(MODULES.values()) <= 5.5
    bulk = [module.lines for module in MODULES.values() if module.room == "bulk"]
    assert len(bulk) <= 11
    assert sum(bulk) <= 2_300


@pytest.mark.parametrize("name", MODULES)
def test_a_module_and_its_functions_are_short(name: str) -> None:
    module = MODULES[name]
    assert module.lines <= 500
    assert {function for function, length in module.functions() if length > 60} == set()


def test_the_heart_can_be_read_in_an_afternoon() -> None:
    assert not {"captioner.runtime.torch", "captioner.model.decoder", "captioner.model.encoder"} & HEART
    assert len(HEART) <= 35
    assert sum(MODULES[name].lines for name in HEART) <= 5_210


def test_no_folder_holds_one_file() -> None:
    folders = {module.path.parent for module in MODULES.values()}
    assert [folder.name for folder in folders if len(list(folder.glob("*.py"))) < 3] == []


def test_the_documents_show_the_floors() -> None:
    document = (house.ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert house.floor_table() in document, "put the output of house.floor_table() into docs/architecture.md"


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("captioner", {"torch", "gradio", "nltk", "numpy", "PIL"}),
        ("captioner.cli", {"torch", "gradio", "nltk"}),
        ("captioner.metrics.evaluate", {"torch", "gradio", "nltk", "PIL"}),
        ("captioner.datasets", {"torch", "gradio", "nltk", "numpy"}),
        ("captioner.images", {"torch", "torchvision", "gradio"}),
        ("captioner.decoding.search", {"torch", "onnxruntime", "nltk"}),
        ("captioner.captioner", {"torch", "torchvision", "gradio", "matplotlib", "nltk"}),
        ("captioner.metadata", {"torch", "onnxruntime"}),
        ("captioner.search.search", {"torch", "gradio", "nltk"}),
        ("captioner.evaluation.adjust", {"torch", "gradio", "nltk", "matplotlib"}),
        ("captioner.cluster.steps", {"torch", "ray"}),
    ],
)
def test_importing_a_module_does_not_import_what_it_does_not_need(module: str, forbidden: set[str]) -> None:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not forbidden & set(loaded.stdout.split())


def test_tests_mirror_the_package() -> None:
    folders = {path.name for path in house.PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders <= {path.name for path in (house.ROOT / "tests").iterdir()}
