from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.skips import NO_DATA

Corpus = list[tuple[list[str], list[list[str]]]]


def split_words(text: str) -> list[str]:
    """A stand-in for the tokeniser, where a test is about what comes after it."""
    return text.lower().replace(".", " ").replace(",", " ").split()


@pytest.fixture(scope="session")
def captions_val2017(real_data: Path) -> dict[int, list[str]]:
    """COCO's official references: 5,000 images, 25,014 captions."""
    path = real_data / "coco" / "annotations" / "captions_val2017.json"
    if not path.is_file():
        pytest.skip(f"{NO_DATA}: {path} is absent")
    captions: dict[int, list[str]] = {}
    for annotation in json.loads(path.read_text(encoding="utf-8"))["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    return captions


@pytest.fixture(scope="session")
def human_corpus(captions_val2017: dict[int, list[str]]) -> Corpus:
    """One human caption as hypothesis, the others as references, for 1,000 images."""
    first = list(captions_val2017.values())[:1000]
    return [(split_words(texts[0]), [split_words(text) for text in texts[1:]]) for texts in first]
