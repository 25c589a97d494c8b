from __future__ import annotations

import base64
import html
import io
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")

from PIL import Image

from captioner import Score
from captioner.captioner import Captioner
from captioner.errors import CaptionerError
from captioner.web import render
from captioner.web.service import Service
from captioner.web.settings import Settings
from captioner.web.single import Visit, answer, score_sentence
from tests.web.uploading import upload

SENTENCE = "a large dog runs in the grass"


CHOICES = ["beam", None, 0.8, 0.9, 5, None, 0, None]


def replayed(service: Service, path: Path, found: render.Answer) -> tuple[Score, Any]:
    """What the decisions behind an answer are made of."""
    prepared = service.prepare(path)
    words = " ".join(found.captions[0].words)
    return service.score(prepared, words, runners_up=4, attention=True), prepared.pixels


def text_of(page: str) -> str:
    return html.unescape(re.sub("<[^>]*>", " ", page))


def test_an_answer_is_what_the_captioner_says(service: Service, captioner: Captioner, images: list[Path]) -> None:
    for image, (best, *_) in zip(images, captioner.caption(images), strict=True):
        found = answer(service, upload(image), Settings())
        assert found.captions[0].text == best.text
        assert len(found.captions) == captioner.options.beam_size
        assert found.seconds > 0
        assert not found.options.sampling


def test_sampling_is_repeatable_and_depends_on_the_seed(service: Service, images: list[Path]) -> None:
    def texts(seed: int) -> list[str]:
        settings = Settings(method="sample", temperature=2, top_p=1, seed=seed)
        found = answer(service, upload(images[0]), settings)
        assert found.options.sampling
        return [caption.text for caption in found.captions]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_the_longest_caption_is_kept(service: Service, images: list[Path]) -> None:
    found = answer(service, upload(images[0]), Settings(max_length=2))
    assert {len(caption.words) <= 2 for caption in found.captions} == {True}


@pytest.mark.parametrize("nothing", [None, {}, {"path": ""}, {"path": None}])
def test_no_image_is_told_kindly(service: Service, nothing: dict[str, Any] | None) -> None:
    with pytest.raises(CaptionerError, match="choose an image first"):
        answer(service, nothing, Settings())
    assert "Choose an image first" in score_sentence(service, Visit(), nothing, SENTENCE, CHOICES)


def test_a_comparison_has_both_sentences(service: Service, images: list[Path]) -> None:
    best = answer(service, upload(images[0]), Settings()).captions[0]
    card = text_of(score_sentence(service, Visit(), upload(images[0]), SENTENCE, CHOICES))
    for text in (SENTENCE, " ".join(best.words)):
        assert " ".join(text.split()) in " ".join(card.split())


def test_a_comparison_takes_the_caption_that_is_shown(
    service: Service, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    visit, image = Visit(), upload(images[0])
    visit.shown = image, None, answer(service, image, Settings(method="greedy"))
    monkeypatch.setattr(service, "caption", lambda *_: pytest.fail("it is written again"))
    card = text_of(score_sentence(service, visit, image, SENTENCE, CHOICES))
    assert " ".join(visit.shown[2].captions[0].words) in " ".join(card.split())


def test_the_card_shows_the_caption_and_its_alternatives(service: Service, images: list[Path]) -> None:
    found = answer(service, upload(images[0]), Settings())
    card = render.answer_card(found)
    assert card.count('<p class="caption">') == 1
    assert f'data-copy="{html.escape(found.captions[0].text)}"' in card
    assert f'data-announce="Caption: {html.escape(found.captions[0].text)}"' in card
    widths = [float(width) for width in re.findall(r'style="width:([\d.]+)%"', card)]
    assert len(widths) == len(found.captions)
    assert max(widths) == 100
    for caption, width in zip(found.captions, widths, strict=True):
        assert caption.text in text_of(card)
        share = math.exp(caption.log_prob - max(c.log_prob for c in found.captions))
        assert width == pytest.approx(100 * share, abs=0.06)


def test_an_order_that_is_not_that_of_the_bars_is_explained(service: Service, images: list[Path]) -> None:
    found = answer(service, upload(images[0]), Settings())
    better, worse = sorted(found.captions[:2], key=lambda caption: -caption.log_prob)
    longer, many = "favours longer sentences", "many of them say"
    for captions, values, told in (
        ((better, worse), {}, ""),
        ((better, worse), {"consensus": True}, ""),
        ((worse, better), {}, longer),
        ((worse, better), {"consensus": True}, many),
        ((worse, better), {"temperature": 1.0, "consensus": True}, ""),
    ):
        options = replace(found.options, **values)
        card = render.answer_card(replace(found, captions=captions, options=options))
        assert [hint for hint in (longer, many) if hint in card] == [told] * bool(told)


def test_a_caption_that_is_more_likely_bad_says_so(service: Service, images: list[Path]) -> None:
    found = answer(service, upload(images[0]), Settings())
    for confidence, said in ((None, False), (0.1, True), (0.32, True), (0.34, False), (0.9, False)):
        best = replace(found.captions[0], confidence=confidence)
        card = text_of(render.answer_card(replace(found, captions=(best, *found.captions[1:]))))
        assert ("I am not sure about this one." in card) == said


def test_greedy_search_has_one_caption_and_nothing_to_compare_it_with(service: Service, images: list[Path]) -> None:
    found = answer(service, upload(images[0]), Settings(method="greedy"))
    card = render.answer_card(found)
    assert text_of(card).count(found.captions[0].text) == 2  # in large letters, and with its probability
    assert 'class="bar"' not in card
    assert "bars" not in card


def test_what_numbers_are_is_said_once_and_not_in_every_line(service: Service, images: list[Path]) -> None:
    found = answer(service, upload(images[0]), Settings())
    (lines,) = re.findall(r"<tbody>.*</tbody>", render.answer_card(found))
    own = service.score(service.prepare(images[0]), SENTENCE)
    for text in (text_of(lines), text_of(render.comparison_card(own, found.captions[0]))):
        assert "1 in " not in text
    said = text_of(render.answer_card(found))
    assert said.count("1 in ") == 1
    assert said.count("natural logarithm") == 1
    assert said.count(f"{found.seconds:.2f} s to look and write") == 1


def test_the_decisions_name_each_word_with_runners_up(service: Service, images: list[Path]) -> None:
    found = answer(service, upload(images[0]), Settings())
    score, seen = replayed(service, images[0], found)
    table = render.decisions(score, seen)
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", table)
    assert len(rows) == len(score.words) + 1
    for row, word, value in zip(rows, score.words, score.word_log_probs, strict=False):
        assert f'<th scope="row">{html.escape(word)}</th>' in row
        assert f"width:{100 * math.exp(value):.1f}%" in row
        others = re.findall(r"<li>(.*?) <span", row)
        assert len(others) == 3
        assert html.escape(word) not in others
    assert "end of sentence" in rows[-1]
    assert "&lt;end&gt;" not in table


def test_the_decisions_show_where_a_model_with_attention_looked(attentive_file: Path, images: list[Path]) -> None:
    service = Service(attentive_file, device="cpu")
    service.models.start()
    found = answer(service, upload(images[0]), Settings())
    score, seen_pixels = replayed(service, images[0], found)
    maps = score.attention
    assert maps is not None
    table = render.decisions(score, seen_pixels)
    shades = re.findall(r'data-shade="data:image/png;base64,([^"]+)"', table)
    assert len(shades) == len(score.words)
    for shade, weights in zip(shades, maps, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(shade))) as image:
            darkness = np.asarray(image.convert("LA"))[..., 1].astype(int)
        assert darkness.shape == weights.shape
        assert darkness[np.unravel_index(weights.argmax(), weights.shape)] == 0
        lighter = weights.ravel()[:, None] > weights.ravel()[None]
        assert (darkness.ravel()[:, None] <= darkness.ravel()[None])[lighter].all()
    (seen,) = re.findall(r'img src="data:image/jpeg;base64,([^"]+)"', table)
    with Image.open(io.BytesIO(base64.b64decode(seen))) as image:
        assert image.size == (64, 64)


def test_without_attention_there_is_nothing_to_point_at(service: Service, images: list[Path]) -> None:
    table = render.decisions(*replayed(service, images[0], answer(service, upload(images[0]), Settings())))
    assert "look" not in table


def test_the_comparison_says_who_is_preferred_and_what_surprised(service: Service, images: list[Path]) -> None:
    best = answer(service, upload(images[0]), Settings()).captions[0]
    own = service.score(service.prepare(images[0]), SENTENCE)
    card = text_of(render.comparison_card(own, best))
    surprises = card.split("Found unlikely:")[1].split("Its own caption")[0]
    gain = best.log_prob - own.log_prob
    assert ("its own caption" in card.split(" probable")[0]) == (gain >= 0)
    for word, value in zip(own.words, own.word_log_probs, strict=True):
        assert (f" {word} " in surprises) == (math.exp(value) < render.UNLIKELY)
    assert f"{own.perplexity:.1f}" in card or own.perplexity >= 100


@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)>", '" onmouseover="alert(1)', "a & b"])
def test_html_is_text(text: str) -> None:
    shown = render.notice(text)
    assert "<img" not in shown
    assert shown.count(html.escape(text)) == 2
