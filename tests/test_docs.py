"""The documents: links and anchors resolve, and what the README shows is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import captioner

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("weights/*.md"), *ROOT.glob("data/**/*.md")]
)
CODE = re.compile(r"^```.*?^```|^ {4}.*?$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_and_anchor_of_a_document_resolves(document: Path) -> None:
    broken = []
    for link in LINK.findall(CODE.sub("", document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_files_that_a_document_names_exist(document: Path) -> None:
    if "log" in document.parts or document.name == "CHANGELOG.md":  # they tell what was
        return
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|txt))`", document.read_text(encoding="utf-8"))
    assert [name for name in named if not ((ROOT / name).exists() or (ROOT / "captioner" / name).exists())] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_python_names_of_a_document_are_public(document: Path) -> None:
    if "log" in document.parts:
        return
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|\b(?:in|=) )captioner\.([A-Za-z_]+)(?=[(`.])", text)) - {"safetensors", "batch"}
    assert named <= set(captioner.__all__)


def test_the_readme_shows_a_command_and_its_true_answer_in_its_first_ten_lines() -> None:
    start = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:10]
    (command,) = (number for number, line in enumerate(start) if line.startswith("    $ captioner caption "))
    image = start[command].split()[-1]
    assert start[command + 1] == f"    {image}\t{captioner.load().caption([ROOT / image])[0][0].text}"
