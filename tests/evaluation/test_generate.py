from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from captioner.datasets.records import Record
from captioner.decoding.options import DecodingOptions
from captioner.errors import EvaluationError, OptionError
from captioner.evaluation.generate import Generated, generate
from tests.evaluation.small import CAPTIONS, REFERENCES, ColourCaptioner, write_coco

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    images = write_coco(tmp_path).parent / "val2017"
    return [Record(i, images / f"{i:012}.png", tuple(texts), "val") for i, texts in REFERENCES.items()]


def run(captioner: Any, records: list[Record], *, batch_size: int = 4, skip: bool = False) -> Generated:
    return generate(
        captioner,
        records,
        DecodingOptions(beam_size=2),
        batch_size=batch_size,
        skip_unreadable=skip,
    )


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_each_image_gets_its_own_best_caption_in_order(records: list[Record], batch_size: int) -> None:
    captioner = ColourCaptioner()
    made = run(captioner, records, batch_size=batch_size)
    assert list(made.captions.items()) == list(CAPTIONS.items())
    assert made.unreadable == {}
    assert max(captioner.batches) == min(batch_size, 6)
    assert set(captioner.decoded) == {DecodingOptions(beam_size=2)}


def test_progress_counts_every_image(records: list[Record]) -> None:
    done: list[int] = []
    captioner: Any = ColourCaptioner()
    generate(
        captioner,
        records,
        DecodingOptions(),
        batch_size=4,
        skip_unreadable=False,
        on_progress=done.append,
    )
    assert done == [4, 2]


def test_a_broken_image_is_an_error_that_names_it(records: list[Record]) -> None:
    records[1].path.write_bytes(b"broken")
    with pytest.raises(EvaluationError, match=r"1 images cannot be read: 20 \(.*`skip_missing`") as caught:
        run(ColourCaptioner(), records)
    assert records[1].path.name in str(caught.value)


def test_broken_images_may_be_left_out_without_shifting_the_captions(records: list[Record]) -> None:
    for place in (0, 1, 4):
        records[place].path.write_bytes(b"broken")
    made = run(ColourCaptioner(), records, batch_size=2, skip=True)
    assert made.captions == {i: CAPTIONS[i] for i in (30, 40, 60)}
    assert set(made.unreadable) == {10, 20, 50}


def test_nothing_but_broken_images_is_an_error(records: list[Record]) -> None:
    for record in records:
        record.path.write_bytes(b"")
    with pytest.raises(EvaluationError, match="not one of 6 images can be read"):
        run(ColourCaptioner(), records, skip=True)


def test_a_batch_of_no_images_is_refused(records: list[Record]) -> None:
    with pytest.raises(OptionError, match="`batch_size`"):
        run(ColourCaptioner(), records, batch_size=0)
