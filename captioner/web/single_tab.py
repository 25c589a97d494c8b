"""The tab for one picture: how it is laid out, and what happens on which event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from captioner.web import render
from captioner.web.controls import Controls, build_controls, read_choices, suited
from captioner.web.guarding import MODEL
from captioner.web.messages import for_visitor
from captioner.web.samples import Sample, find_samples, sample_buttons
from captioner.web.single import answer, compare
from captioner.web.turns import Turns
from captioner.web.uploads import KEPT, no_addresses

if TYPE_CHECKING:
    from captioner.web.service import Service

Upload: TypeAlias = "Mapping[str, Any] | None"

WELCOME = (
    '<div class="welcome"><p class="caption">What does it see?</p><p>Give it a photograph, and it writes a '
    "sentence about it. The picture stays on this server for an hour at most and goes nowhere else.</p></div>"
)
_SAMPLE_CLICKS = """
element.addEventListener('click', (event) => {
    const button = event.target.closest('[data-sample]');
    if (button) trigger('select', { name: button.dataset.sample });
});
"""
# The service makes batches, so that many may be under way together; of one visitor only the last counts.
_MODEL_EVENT: dict[str, Any] = {
    "preprocess": False,  # files as they were uploaded: our own reader knows what can be wrong with them
    "concurrency_limit": 16,
    "concurrency_id": MODEL,
    "trigger_mode": "always_last",
    "show_progress": "hidden",
    "api_visibility": "private",
}


def caption_upload(service: Service, upload: Upload, choices: Sequence[Any]) -> tuple[str, str]:
    """Answer a visitor: the answer, and the decisions behind it.

    Args:
        service: the model.
        upload: Gradio's record of the file; None if there is none.
        choices: values of :attr:`Controls.values`.
    """
    if not upload:
        return WELCOME, ""
    try:
        found = answer(service, upload, *read_choices(choices))
    except Exception as error:
        return render.notice(for_visitor(error)), ""
    return render.answer_card(found), render.decisions(found)


def score_sentence(service: Service, upload: Upload, text: str, choices: Sequence[Any]) -> str:
    """Compare a visitor's sentence with the model's caption; takes what :func:`caption_upload` takes."""
    try:
        return render.comparison_card(compare(service, upload, text, *read_choices(choices)))
    except Exception as error:
        return render.notice(for_visitor(error))


@dataclass(frozen=True)
class _Parts:
    """The components that events read and change."""

    picture: gr.Image
    samples: gr.HTML
    controls: Controls
    result: gr.HTML
    decisions: gr.HTML
    own: gr.Textbox
    compare: gr.Button
    comparison: gr.HTML


def single_tab(service: Service) -> Controls:
    """Lay out the tab and say what happens in it."""
    samples = find_samples()
    parts = _layout(samples)
    _captioning(service, parts, samples)
    _comparing(service, parts)
    return parts.controls


def _layout(samples: Mapping[str, Sample]) -> _Parts:
    with gr.Column(elem_id="one-picture"):
        picture = gr.Image(
            type="filepath",
            sources=["upload", "clipboard", "webcam"],
            label="Your picture",
            placeholder="Drop a photograph here\nor click to choose one",
            buttons=["fullscreen"],
            alt_text="The picture to caption",
            height=340,
            elem_id="picture",
        )
        no_addresses(picture)
        with gr.Column(elem_id="answer-side"):
            result = gr.HTML(WELCOME, elem_id="answer", apply_default_css=False)
            # These two are hidden by the style sheet while there is no caption: what Gradio is told to show
            # while it still loads the page may never appear.
            with gr.Accordion("How it decided", open=False, elem_id="decided"):
                decisions = gr.HTML(elem_id="decisions", apply_default_css=False)
            own, compare, comparison = _own_sentence()
        with gr.Column(elem_id="samples-side"):
            buttons = gr.HTML(
                sample_buttons(samples),
                js_on_load=_SAMPLE_CLICKS,
                visible=bool(samples),
                elem_id="samples",
                apply_default_css=False,
            )
            controls = build_controls()
    return _Parts(picture, buttons, controls, result, decisions, own, compare, comparison)


def _own_sentence() -> tuple[gr.Textbox, gr.Button, gr.HTML]:
    with gr.Accordion("Compare with a sentence of your own", open=False, elem_id="own"):
        text = gr.Textbox(
            label="Your sentence about the picture",
            placeholder="two dogs look out of a window",
            info="The model says how probable it finds it, and which words it did not expect.",
            max_lines=3,
        )
        button = gr.Button("Compare", variant="primary", elem_id="compare")
        comparison = gr.HTML(elem_id="comparison", apply_default_css=False)
    return text, button, comparison


def _captioning(service: Service, parts: _Parts, samples: Mapping[str, Sample]) -> None:
    picture, controls = parts.picture, parts.controls
    shown = [parts.result, parts.decisions]
    turns = gr.State(Turns(), time_to_live=KEPT)

    def respond(turns: Turns, upload: Upload, *choices: Any) -> Iterator[tuple[Any, ...]]:
        turn = turns.take()
        if upload:
            yield render.notice(busy_text(service), kind="busy"), gr.skip(), ""
        found = caption_upload(service, upload, choices)
        if turn == turns.last:
            yield *found, gr.skip() if upload else ""
        # Gradio sends the last values once more at the end, which must not undo what came in between.
        yield (gr.skip(),) * 3

    def respond_again(turns: Turns, upload: Upload, *choices: Any) -> tuple[Any, ...]:
        if not upload:
            return (gr.skip(),) * 2
        turn = turns.take()
        found = caption_upload(service, upload, choices)
        return found if turn == turns.last else (gr.skip(),) * 2

    def respond_to_sample(event: gr.EventData, turns: Turns, *choices: Any) -> Iterator[tuple[Any, ...]]:
        sample = samples[event.name]
        path = save_file_to_cache(sample.path, cache_dir=picture.GRADIO_CACHE)
        for update in respond(turns, {"path": path, "orig_name": sample.path.name}, *choices):
            yield path, *update

    picture.input(respond, [turns, picture, *controls.values], [*shown, parts.comparison], **_MODEL_EVENT)
    parts.samples.select(
        respond_to_sample, [turns, *controls.values], [picture, *shown, parts.comparison], **_MODEL_EVENT
    )
    # Input is what the visitor does; the page sets defaults too, which is no reason to caption again.
    changes = [control.input for control in controls.values if control is not controls.weights]
    gr.on(changes, respond_again, [turns, picture, *controls.values], shown, **_MODEL_EVENT)
    controls.weights.input(
        lambda weights: suited(service, weights),
        controls.weights,
        [controls.beam_size, controls.max_length],
        **_MODEL_EVENT,
    ).then(respond_again, [turns, picture, *controls.values], shown, **_MODEL_EVENT)


def _comparing(service: Service, parts: _Parts) -> None:
    def compare_own(upload: Upload, text: str, *choices: Any) -> str:
        return score_sentence(service, upload, text, choices)

    gr.on(
        [parts.own.submit, parts.compare.click],
        compare_own,
        [parts.picture, parts.own, *parts.controls.values],
        parts.comparison,
        **_MODEL_EVENT,
    )


def busy_text(service: Service) -> str:
    """What a visitor reads while the model works."""
    if service.models.status.state == "loading":
        return "The model is still loading. The caption will come right after."
    return "Looking at the picture\N{HORIZONTAL ELLIPSIS}"
