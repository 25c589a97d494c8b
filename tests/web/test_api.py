from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")

import gradio as gr

from captioner.captioner import Captioner
from captioner.errors import BusyError
from captioner.web.api import MOST_IMAGES, Metrics, add_endpoints
from captioner.web.service import Service

DEFAULTS = ("beam", 0, 0.8, 0.9, 0, 0)


class Endpoints:
    """The functions behind the endpoints, and their metrics."""

    def __init__(self, service: Service) -> None:
        self.metrics = Metrics(lambda: 0)
        with gr.Blocks() as page:
            add_endpoints(service, self.metrics)
        self._functions: dict[str, Callable[..., Any]] = {
            function.api_name: function.fn for function in page.fns.values()
        }

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return self._functions[name]


@pytest.fixture(scope="module")
def endpoints(service: Service) -> Endpoints:
    return Endpoints(service)


def upload(path: Path, name: str = "holiday.jpg") -> dict[str, Any]:
    return {"path": str(path), "orig_name": name}


def test_caption_is_what_the_captioner_writes(endpoints: Endpoints, captioner: Captioner, image: Path) -> None:
    text, details = endpoints.caption(upload(image), *DEFAULTS)
    (best, *_) = captioner.caption([image])[0]
    assert text == best.text
    assert details["log_prob"] == pytest.approx(best.log_prob, abs=1e-4)
    words = [word["log_prob"] for word in details["words"]]
    assert sum(words) + details["end_log_prob"] == pytest.approx(details["log_prob"], abs=1e-3)
    assert [other["log_prob"] for other in details["alternatives"]] == sorted(
        (other["log_prob"] for other in details["alternatives"]), reverse=True
    )


def test_sampling_follows_its_seed(endpoints: Endpoints, image: Path) -> None:
    drawn = [endpoints.caption(upload(image), "sample", 0, 1.5, 1.0, 12, seed)[0] for seed in (1, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_score_of_the_own_caption_is_its_probability(endpoints: Endpoints, image: Path) -> None:
    text, details = endpoints.caption(upload(image), *DEFAULTS)
    log_prob, scored = endpoints.score(upload(image), text)
    assert log_prob == pytest.approx(details["log_prob"], abs=1e-4)
    assert scored["perplexity"] > 1


def test_a_broken_image_of_several_is_no_failure(endpoints: Endpoints, image: Path, hostile: tuple[Path, str]) -> None:
    path, message = hostile
    good, bad = endpoints.caption_batch([upload(image, "good.png"), upload(path, "bad.jpg")])
    assert (good["name"], good["caption"]) == ("good.png", endpoints.caption(upload(image), *DEFAULTS)[0])
    assert bad["name"] == "bad.jpg"
    assert message in bad["error"]
    assert str(path) not in bad["error"]


def test_refusals_are_sentences_and_are_counted(
    endpoints: Endpoints, image: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BusyError("the server is busy; try again in a moment")

    cases: list[tuple[str, tuple[Any, ...], str]] = [
        ("caption", (None, *DEFAULTS), "Choose an image first."),
        ("caption", (upload(Path(__file__)), *DEFAULTS), "This file was not uploaded"),
        ("caption", (upload(image), "fly", *DEFAULTS[1:]), "Method must be one of"),
        ("caption_batch", ([],), "Send at least one image."),
        ("caption_batch", ([upload(image)] * (MOST_IMAGES + 1),), "at most 100 images"),
        ("score", (upload(image), None), "The sentence must be a text."),
        ("score", (upload(image), "a zebra"), "does not know"),
    ]
    for name, arguments, message in cases:
        with pytest.raises(gr.Error) as caught:
            getattr(endpoints, name)(*arguments)
        assert message in caught.value.message
    monkeypatch.setattr(service, "encode", refuse)
    with pytest.raises(gr.Error, match="busy"):
        endpoints.caption(upload(image), *DEFAULTS)
    text = endpoints.metrics.text().decode()
    assert 'captioner_errors_total{endpoint="/caption"} 4.0' in text
    assert 'captioner_errors_total{endpoint="/score"} 2.0' in text
