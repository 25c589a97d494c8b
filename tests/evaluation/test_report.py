from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from captioner.errors import CaptionerError
from captioner.evaluation.evaluate import Evaluation, Provenance, evaluate
from captioner.evaluation.options import EvaluationOptions
from captioner.evaluation.report import write_report
from captioner.metrics.evaluate import References
from tests.evaluation.small import CAPTIONS, REFERENCES, write_coco

if TYPE_CHECKING:
    from pathlib import Path


class Page(HTMLParser):
    """Collects tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page(folder: Path, evaluation: Evaluation) -> Page:
    images = {number: folder / "val2017" / f"{number:012}.png" for number in REFERENCES}
    write_report(folder / "report.html", evaluation, images)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_shows_figures_images_captions_references_and_signature(tmp_path: Path, evaluation: Evaluation) -> None:
    write_coco(tmp_path)
    found = page(tmp_path, evaluation)
    for name, figure in evaluation.scores.figures.items():
        assert name in found.text
        assert f"{100 * figure:.2f}" in found.text
    for heading in ("Best images", "Median images", "Worst images"):
        assert heading in found.text
    assert evaluation.signature in found.text
    assert REFERENCES[60][2] in found.text
    assert "6 of 8 images (2 absent: skipped)" in found.text


def test_captions_are_text_not_markup(tmp_path: Path, evaluation: Evaluation) -> None:
    found = page(tmp_path, evaluation)
    assert evaluation.captions[60] in found.text
    assert not any("onload" in attributes for _, attributes in found.tags)


def test_half_a_character_does_not_stop_the_report(tmp_path: Path) -> None:
    captions = {**CAPTIONS, 60: "a blue \ud83d square"}
    evaluation = evaluate(captions, References(REFERENCES), Provenance("coco val", 6), EvaluationOptions(meteor=False))
    assert "a blue ? square" in page(tmp_path, evaluation).text


def test_nothing_is_requested_from_outside(tmp_path: Path, evaluation: Evaluation) -> None:
    write_coco(tmp_path)
    found = page(tmp_path, evaluation)
    assert not {tag for tag, _ in found.tags} & {"script", "link", "iframe", "object", "base"}
    addresses = [value for _, attributes in found.tags for name, value in attributes.items() if name in ("src", "href")]
    assert addresses
    assert all(value is not None and value.startswith("data:image/jpeg;base64,") for value in addresses)
    assert not re.search(r"url\(|@import|https?://", (tmp_path / "report.html").read_text(encoding="utf-8"))


def test_thumbnails_are_the_images(tmp_path: Path, evaluation: Evaluation) -> None:
    write_coco(tmp_path)
    sources = [attributes["src"] for tag, attributes in page(tmp_path, evaluation).tags if tag == "img"]
    assert len(sources) == 6
    for source in sources:
        assert source is not None
        image = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
        assert image.size == (40, 30)


def test_a_image_that_is_not_at_hand_leaves_a_box(tmp_path: Path, evaluation: Evaluation) -> None:
    found = page(tmp_path, evaluation)
    assert found.text.count("image not at hand") == 6


def test_the_bars_count_every_image(tmp_path: Path, evaluation: Evaluation) -> None:
    titles = re.findall(r"(\d+) to (\d+): (\d+) images", page(tmp_path, evaluation).text)
    assert sum(int(count) for _, _, count in titles) == 6
    cider = 100 * evaluation.scores.per_image["CIDEr"]
    for low, high, count in titles[:-1]:
        assert int(count) == ((cider >= int(low)) & (cider < int(high))).sum()


@pytest.mark.parametrize("images", [1, 2])
def test_a_image_or_two_are_shown_once(tmp_path: Path, images: int) -> None:
    some = list(CAPTIONS)[:images]
    few = evaluate(
        {i: CAPTIONS[i] for i in some},
        References({i: REFERENCES[i] for i in some}),
        Provenance("coco val", images),
        EvaluationOptions(bootstrap=0, meteor=False),
    )
    found = page(tmp_path, few)
    assert [tag for tag, _ in found.tags].count("figure") == images
    assert "95% interval" in found.text


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path: Path, evaluation: Evaluation) -> None:
    with pytest.raises(CaptionerError, match="cannot write"):
        write_report(tmp_path / "absent" / "report.html", evaluation, {})
