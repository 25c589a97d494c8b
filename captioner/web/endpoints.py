"""What programs may call: ``/caption``, ``/caption_batch`` and ``/score``.

The docstrings and parameter names of the three functions are the documentation that Gradio shows to
programs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import gradio as gr

from captioner.web.answers import answering, captioned, chosen, recorded, scored
from captioner.web.messages import shown_name
from captioner.web.settings import METHODS
from captioner.web.single import encode_upload
from captioner.web.uploads import no_addresses

if TYPE_CHECKING:
    from captioner.web.metrics import Metrics
    from captioner.web.service import Service


def add_endpoints(service: Service, metrics: Metrics) -> None:
    """Add the endpoints to the page that is being built; nothing of them is seen there."""
    endpoints = _Endpoints(service, metrics)
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
        _endpoint(endpoints.caption, [picture, *choices], [text, details])
        _endpoint(endpoints.caption_batch, [pictures], [details])
        _endpoint(endpoints.score, [picture, sentence], [number, details])


class _Endpoints:
    """The functions behind the endpoints, which are called as these are."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics

    def caption(
        self,
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
        with answering(self._metrics, "/caption", _refusal):
            settings = chosen(method, beam_size, temperature, top_p, max_length, seed)
            details = asdict(captioned(self._service, encode_upload(self._service, image), settings))
            return details.pop("caption"), details

    def caption_batch(self, images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Caption several photographs.

        Args:
            images: the photographs, 100 at most.

        Returns:
            In the same order: for each its name with caption and log_prob, or with error.
        """
        with answering(self._metrics, "/caption_batch", _refusal):
            names = [shown_name(image.get("orig_name")) for image in images or ()]
            found = recorded(self._service, names, lambda place: encode_upload(self._service, images[place]))
            return [{k: v for k, v in asdict(record).items() if v is not None} for record in found]

    def score(self, image: Mapping[str, Any], text: str) -> tuple[float, dict[str, Any]]:
        """Tell how probable a sentence is for a photograph.

        Args:
            image: the photograph.
            text: the sentence.

        Returns:
            log P(text | image), the natural logarithm; and perplexity and the log-probability of each word.
        """
        with answering(self._metrics, "/score", _refusal):
            found = asdict(scored(self._service, encode_upload(self._service, image), text))
            return found.pop("log_prob"), found


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


def _refusal(message: str) -> gr.Error:
    return gr.Error(message, duration=None, print_exception=False)
