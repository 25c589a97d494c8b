from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from captioner.errors import EvaluationError
from captioner.metrics.coco import DocumentFrequencies

if TYPE_CHECKING:
    from pathlib import Path


DOGS = [[["a", "dog"], ["the", "dog"]], [["a", "dog", "a", "dog"]], [["cat"]]]


def test_counts_images_not_captions_nor_repetitions() -> None:
    table = DocumentFrequencies.from_tokens(DOGS)
    assert table.documents == 3
    assert table.counts == {("a",): 2, ("dog",): 2, ("a", "dog"): 2}


def test_a_saved_table_reads_back_the_same(tmp_path: Path) -> None:
    table = DocumentFrequencies.from_tokens([[["café", "1\u00a01/2"]], [["café", "1\u00a01/2"]]])
    table.save(tmp_path / "table.json")
    loaded = DocumentFrequencies.load(tmp_path / "table.json")
    assert (loaded.documents, loaded.counts) == (table.documents, table.counts)
    assert loaded.source.startswith("table of 2 images sha256:")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "no table of document frequencies"),
        ({"tokenizer": "other"}, "was made with tokeniser other"),
        ({"documents": "3"}, "must be a number"),
        ({"documents": 0}, "table.json: .* at least one image"),
        ({"counts": {"a": 4}}, "table.json: .* more images than the table counts"),
        ({"counts": {"a": "b"}}, "every count must be above 0"),
        ({"counts": {"a": -1, "b": 2}}, "every count must be above 0"),
        ({"counts": {"a b c d e": 2}}, "of 1 to 4 words"),
        ({"counts": []}, "must be a number and 'counts' an object"),
    ],
)
def test_a_broken_table_is_one_clear_error(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "table.json"
    DocumentFrequencies.from_tokens(DOGS).save(path)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(EvaluationError, match=message):
        DocumentFrequencies.load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_file_that_is_no_table_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match="no table of document frequencies"):
        DocumentFrequencies.load(path)


def test_an_absent_table_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="cannot read"):
        DocumentFrequencies.load(tmp_path / "absent.json")
