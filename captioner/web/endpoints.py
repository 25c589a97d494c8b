"""What programs may call: ``/caption``, ``/caption_batch`` and ``/score``.

The docstrings and parameter names of the three functions are the documentation that Gradio shows to
programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gradio as gr

from captioner.errors import CaptionerError
from captioner.web.messages import for_visitor, shown_name
from captioner.web.settings import METHODS, Settings
from captioner.web.single import encode_upload
from captioner.web.uploads import no_addresses

if TYPE_CHECKING:
    from captioner.captioner import Caption
    from captioner.likelihood.scores import Score
    from captioner.web.metrics import Metrics
    from captioner.web.service import Service

MOST_PICTURES = 100  # in one call of /caption_batch
_AT_ONCE = 8  # pictures of one such call that are under way together


def add_endpoints(service: Service, metrics: Metrics) -> None:
    """Add the endpoints to the page that is being built; nothing of them is seen there."""

    def caption(
        image: Mapping[str, Any],
        method: str,
        beam_size: float,
        temperature: float,
        top_p: float,
        max_length: float,
        seed: float,
    ) -> tuple[str, dict[str, Any]]:
        """Write a caption for a photograph.

        Args:
            image: the photograph.
            method: "beam" (the most probable caption), "greedy" (word by word) or "sample" (varied).
            beam_size: captions that beam search keeps in the making, 1 to 10; 0 for what suits the model.
            temperature: of sampling, 0.1 to 2.
            top_p: sample only from the likeliest words that together have this probability.
            max_length: most words of a caption, 1 to 50; 0 for what suits the model.
            seed: of sampling.

        Returns:
            The caption; and its words, log-probabilities and alternatives.
        """
        with _answering(metrics, "/caption"):
            settings = Settings.of(
                [method, beam_size or None, temperature, top_p, 1, max_length or None, seed]
            )
            encoded = encode_upload(service, image)
            best, *others = service.caption(encoded, settings.options(service.options()))
            return best.text, {**_details(best), "alternatives": [_brief(other) for other in others]}

    def caption_batch(images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Caption several photographs.

        Args:
            images: the photographs, 100 at most.

        Returns:
            In the same order: for each its name with caption and log_prob, or with error.
        """
        with _answering(metrics, "/caption_batch"), ThreadPoolExecutor(_AT_ONCE) as pool:
            if not images:
                raise CaptionerError("send at least one picture")
            if len(images) > MOST_PICTURES:
                raise CaptionerError(f"send at most {MOST_PICTURES} pictures at once, not {len(images)}")
            return list(pool.map(lambda image: _record(service, image), images))

    def score(image: Mapping[str, Any], text: str) -> tuple[float, dict[str, Any]]:
        """Tell how probable a sentence is for a photograph.

        Args:
            image: the photograph.
            text: the sentence.

        Returns:
            log P(text | image), the natural logarithm; and perplexity and the log-probability of each word.
        """
        with _answering(metrics, "/score"):
            if not isinstance(text, str):
                raise CaptionerError("the sentence must be a text")
            found = service.score(encode_upload(service, image), text)
            return found.log_prob, {"perplexity": found.perplexity, **_words(found)}

    with gr.Column(visible=False):
        picture = no_addresses(gr.Image(type="filepath", label="image"))
        pictures = no_addresses(gr.File(file_count="multiple", label="images"))
        sentence = gr.Textbox(label="text")
        method = gr.Radio(METHODS, value="beam", label="method")
        beam_size = gr.Number(0, label="beam_size", precision=0)
        temperature = gr.Number(0.8, label="temperature")
        top_p = gr.Number(0.9, label="top_p")
        max_length = gr.Number(0, label="max_length", precision=0)
        seed = gr.Number(0, label="seed", precision=0)
        choices = [method, beam_size, temperature, top_p, max_length, seed]
        text, number, details = (
            gr.Textbox(label="caption"),
            gr.Number(label="log_prob"),
            gr.JSON(label="details"),
        )
        _endpoint(caption, [picture, *choices], [text, details])
        _endpoint(caption_batch, [pictures], [details])
        _endpoint(score, [picture, sentence], [number, details])


def _endpoint(function: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
    gr.Button(visible=False).click(
        function,
        inputs,
        outputs,
        preprocess=False,
        api_name=function.__name__,
        concurrency_limit=None,
        show_progress="hidden",
    )


@contextmanager
def _answering(metrics: Metrics, endpoint: str) -> Iterator[None]:
    """Count a call; a failure becomes a sentence for the caller."""
    try:
        with metrics.request(endpoint):
            yield
    except Exception as error:
        raise gr.Error(for_visitor(error), duration=None, print_exception=False) from error


def _record(service: Service, image: Mapping[str, Any]) -> dict[str, Any]:
    name = shown_name(image.get("orig_name"))
    try:
        return {"name": name, **_brief(service.caption(encode_upload(service, image))[0])}
    except Exception as error:
        return {"name": name, "error": for_visitor(error)}


def _brief(caption: Caption) -> dict[str, Any]:
    return {"caption": caption.text, "log_prob": caption.log_prob}


def _details(caption: Caption) -> dict[str, Any]:
    return {"log_prob": caption.log_prob, **_words(caption)}


def _words(sentence: Caption | Score) -> dict[str, Any]:
    words = zip(sentence.words, sentence.word_log_probs, strict=True)
    return {
        "words": [{"word": word, "log_prob": log_prob} for word, log_prob in words],
        "end_log_prob": sentence.end_log_prob,
    }
