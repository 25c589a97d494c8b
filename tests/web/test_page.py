from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from inspect import isgeneratorfunction
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")

import gradio as gr

from captioner.captioner import Captioner
from captioner.web.api import Metrics
from captioner.web.many import Album, run_album
from captioner.web.page import about_facts, build_page, look, model_card, status_line
from captioner.web.service import Service
from captioner.web.single import (
    FOLDER,
    WELCOME,
    Visit,
    busy_text,
    caption_upload,
    explain,
    find_samples,
    fold,
    read_choices,
    sample_buttons,
    score_sentence,
    suited,
    unfold,
)
from tests.web.uploading import upload

CHOICES = ["beam", 3, 0.8, 0.9, 5, 8, 0, "small"]
"""What the components hold: method, beam size, temperature, top-p, draws, longest caption, seed, weights."""


def test_the_page_writes_what_the_captioner_writes(service: Service, captioner: Captioner, images: list[Path]) -> None:
    visit = Visit()
    assert explain(service, visit) == ""
    card, visit.shown = caption_upload(service, upload(images[0]), CHOICES)
    assert captioner.caption([images[0]])[0][0].text in card
    assert "<table>" in explain(service, visit)


def test_before_the_controls_are_set_the_weights_own_settings_count(service: Service) -> None:
    settings, weights = read_choices([*CHOICES[:1], 9, *CHOICES[2:-1], None])
    assert weights is None
    assert (settings.beam_size, settings.max_length) == (None, None)
    settings, weights = read_choices([*CHOICES[:1], 9, *CHOICES[2:-1], "small"])
    assert (settings.beam_size, settings.max_length, weights) == (9, 8, "small")
    beams, length = suited(service, "captioner")
    assert (beams["value"], length["value"]) == (5, 30)


def test_without_an_image_it_welcomes(service: Service) -> None:
    assert caption_upload(service, None, CHOICES) == (WELCOME, None)


def test_a_hostile_image_gets_a_message_and_the_next_visitor_a_caption(
    service: Service, hostile: tuple[Path, str], image: Path
) -> None:
    path, message = hostile
    visit = Visit()
    card, visit.shown = caption_upload(service, upload(path, "<i>holiday.jpg"), CHOICES)
    assert message in card
    assert "&lt;i&gt;holiday.jpg" in card
    assert "<i>" not in card
    assert str(path) not in card
    assert explain(service, visit) == ""
    assert '<p class="caption">' in caption_upload(service, upload(image), CHOICES)[0]


@pytest.mark.parametrize("place", range(len(CHOICES) - 1))
def test_settings_from_elsewhere_are_checked(service: Service, image: Path, place: int) -> None:
    choices = [*CHOICES]
    choices[place] = "<script>"
    card, _ = caption_upload(service, upload(image), choices)
    assert 'class="notice error"' in card
    assert "<script>" not in card


def test_unknown_weights_are_told(service: Service, image: Path) -> None:
    card, _ = caption_upload(service, upload(image), [*CHOICES[:-1], "../../etc/passwd"])
    assert "There are no weights" in card


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a dog on the <b>moon</b>", "&#x27;moon&#x27;"),
        ("dog " * 10_000, "at most 100 words"),
        ("", "no words"),
        ("\x00\x1b[31m", "31m"),
        ("\ud800", "not valid UTF-8"),
    ],
)
def test_strange_sentences_get_a_message(service: Service, image: Path, text: str, message: str) -> None:
    card = score_sentence(service, Visit(), upload(image), text, CHOICES)
    assert message in card
    assert "<b>moon" not in card
    assert "comparison" in score_sentence(service, Visit(), upload(image), "a dog", CHOICES)


def test_an_album_reports_and_ends(service: Service, images: list[Path]) -> None:
    album = Album()
    files = [upload(image, image.name) for image in images[:3]]
    reports = list(run_album(service, album, files, CHOICES))
    assert reports[0][1] == ""  # the gallery of a run before is cleared
    assert "Captioned 3 images" in reports[-1][0]
    assert reports[-1][1].count("<textarea") == 3


def test_an_album_of_nothing_is_told(service: Service) -> None:
    for nothing in (None, []):
        assert "Choose some images" in [*run_album(service, Album(), nothing, CHOICES)][-1][0]


def test_status_and_busy_texts_follow_the_service(service: Service, checkpoint_file: Path) -> None:
    assert "Model ready" in status_line(service)
    loading = Service(checkpoint_file)
    assert 'class="status loading"' in status_line(loading)
    assert "still loading" in busy_text(loading)
    assert "still loading" not in busy_text(service)


def test_about_tells_facts_and_card(service: Service) -> None:
    facts = about_facts(service, "captioner")
    assert service.models.about("captioner").digest in facts
    card = model_card(service, "captioner")
    assert card.startswith("## Model card")
    assert "### Failings" in card
    assert "coco_ids.txt" in card
    assert "](coco_ids.txt)" not in card
    assert "no model card" in model_card(service)


def test_about_tells_why_there_is_no_model(tmp_path: Path) -> None:
    service = Service(tmp_path / "absent.safetensors")
    service.models.start()
    assert "cannot be loaded" in about_facts(service)
    assert model_card(service) == ""
    assert str(tmp_path) not in about_facts(service)


def test_samples_are_those_of_the_project() -> None:
    samples = find_samples()
    files = {path.stem for path in FOLDER.iterdir() if path.suffix in (".jpg", ".png")}
    assert set(samples) == files
    page = sample_buttons(samples)
    assert page.count("<button") == len(files)
    assert page.count('alt="Sample: ') == len(files)


def test_without_samples_there_are_none(tmp_path: Path) -> None:
    assert find_samples(tmp_path) == {}


def test_the_theme_asks_nothing_of_other_machines() -> None:
    parts = look()
    text = parts["css"] + parts["head"] + json.dumps(parts["theme"]._get_theme_css())
    assert not re.findall(r"(?:https?:)?//[a-z]", re.sub(r"//.*", "", parts["head"]) + parts["css"])
    assert "googleapis" not in text
    assert parts["theme"]._stylesheets == []


def test_a_page_keeps_its_events_to_itself(service: Service) -> None:
    page = build_page(service)
    assert {function.api_visibility for function in page.fns.values()} == {"private"}
    assert not page.analytics_enabled
    public = {function.api_name for function in build_page(service, Metrics(lambda: 0)).fns.values()}
    assert {"caption", "caption_batch", "score"} <= public


def handlers(service: Service) -> dict[str, Callable[..., Any]]:
    """What the page does on events, by name."""
    return {function.fn.__name__: function.fn for function in build_page(service).fns.values() if function.fn}


def test_an_answer_that_was_overtaken_is_not_shown(service: Service, images: list[Path]) -> None:
    page, visit, skipped = handlers(service), Visit(), (gr.skip(),) * 3
    overtaken = page["respond"](visit, upload(images[0]), *CHOICES)
    assert 'class="notice busy"' in next(overtaken)[0]
    assert all(isgeneratorfunction(page[name]) for name in ("respond", "respond_again", "respond_to_sample"))
    later = [*page["respond_again"](visit, upload(images[1]), "greedy", *CHOICES[1:])]
    assert '<p class="caption">' in later[0][0]
    assert [*overtaken] == [skipped]
    assert [*page["respond_again"](visit, None, *CHOICES)] == [skipped]
    assert visit.shown is not None
    assert visit.shown[0] == upload(images[1])


def test_an_answer_is_not_told_twice(service: Service, images: list[Path]) -> None:
    # The last that a generator yields is sent to the browser once more at its end.
    busy, answer, last = handlers(service)["respond"](Visit(), upload(images[0]), *CHOICES)
    assert 'class="notice busy"' in busy[0]
    assert '<p class="caption">' in answer[0]
    assert last == (gr.skip(),) * 3


def test_decisions_are_computed_only_while_they_are_seen(
    service: Service, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    visit, page, scores = Visit(), handlers(service), service.scores
    monkeypatch.setattr(service, "scores", lambda *_, **__: pytest.fail("nobody sees them"))
    _, answer, _ = page["respond"](visit, upload(images[0]), *CHOICES)
    assert answer[1] == ""
    monkeypatch.setattr(service, "scores", scores)
    assert "<table>" in unfold(service, visit)
    _, answer, explained, _ = page["respond"](visit, upload(images[1]), *CHOICES)
    assert (answer[1], "<table>" in explained[1]) == ("", True)
    fold(visit)
    assert len([*page["respond"](visit, upload(images[0]), *CHOICES)]) == 3


def test_the_page_is_there_at_once_and_without_the_model() -> None:
    code = (
        "import gradio, sys, time; from captioner.web.options import ServingOptions;"
        "from captioner.web.page import build_app;"
        "from captioner.web.service import Service; start = time.process_time();"
        "build_app(Service('absent'), ServingOptions());"
        "print('torch' in sys.modules, time.process_time() - start)"
    )
    torch, seconds = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert torch == "False"
    assert float(seconds) < 2
