"""The controls of the settings: how they look, and what their values mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from captioner.errors import CaptionerError
from captioner.web import render
from captioner.web.gradio_fixes import KEPT, MODEL, no_addresses
from captioner.web.messages import for_visitor
from captioner.web.render import Sample, find_samples, sample_buttons
from captioner.web.settings import LONGEST_CAPTION, MOST_BEAMS, Settings
from captioner.web.single import answer, compare

if TYPE_CHECKING:
    from captioner.web.service import Service


_METHODS = [
    ("Most probable (beam search)", "beam"),
    ("Word by word (greedy)", "greedy"),
    ("Varied (sampling)", "sample"),
]


@dataclass(frozen=True)
class Controls:
    """The components in which a visitor chooses, in the order of the fields of :class:`Settings`."""

    method: gr.Radio
    beam_size: gr.Slider
    temperature: gr.Slider
    top_p: gr.Slider
    draws: gr.Slider
    max_length: gr.Slider
    seed: gr.Number
    weights: gr.Dropdown

    @property
    def values(self) -> list[Any]:
        """What handlers take: the settings, and the weights at the end."""
        return [getattr(self, item.name) for item in fields(Settings)] + [self.weights]


def read_choices(choices: Sequence[Any]) -> tuple[Settings, str | None]:
    """Settings and weights from the values of :attr:`Controls.values`.

    Raises:
        OptionError: a value is out of its bounds.
    """
    *values, weights = choices
    settings = Settings.of(values)
    if weights:
        return settings, str(weights)
    # The page was opened just now, and the controls do not show yet what suits the weights.
    return replace(settings, beam_size=None, max_length=None), None


def suited(service: Service, weights: str | None = None) -> tuple[Any, Any]:
    """Updates of beam size and longest caption to what suits some weights best."""
    try:
        options = service.options(weights)
    except CaptionerError:  # told when an image is captioned
        return gr.skip(), gr.skip()
    return (
        gr.update(value=min(options.beam_size, MOST_BEAMS)),
        gr.update(value=min(options.max_length, LONGEST_CAPTION)),
    )


def build_controls() -> Controls:
    """Lay the controls out, folded away. What suits the weights is set when they are loaded."""
    items = {item.name: item for item in fields(Settings)}

    def slider(name: str, label: str, value: float, step: float = 1) -> gr.Slider:
        about = items[name].metadata
        info = about["help"][:1].upper() + about["help"][1:] + "."
        return gr.Slider(about["low"], about["high"], value, step=step, label=label, info=info)

    with gr.Accordion("Settings", open=False, elem_id="settings"):
        method = gr.Radio(
            _METHODS, value="beam", label="How to write", info="How the words are chosen from probabilities."
        )
        with gr.Group() as searching:
            beam_size = slider("beam_size", "Beam size", 5)
        with gr.Group(visible=False) as sampling:
            temperature = slider("temperature", "Temperature", Settings.temperature, 0.05)
            top_p = slider("top_p", "Top-p", Settings.top_p, 0.05)
            draws = slider("draws", "Captions", Settings.draws)
            seed = gr.Number(0, label="Seed", info="The same seed draws the same captions again.", precision=0)
        max_length = slider("max_length", "Longest caption", 30)
        weights = gr.Dropdown([], label="Weights", info="The model that looks and writes.", visible=False)
    method.input(
        lambda method: (gr.update(visible=method == "beam"), gr.update(visible=method == "sample")),
        method,
        [searching, sampling],
        show_progress="hidden",
        api_visibility="private",
    )
    return Controls(method, beam_size, temperature, top_p, draws, max_length, seed, weights)


@dataclass
class Turns:
    """Numbers a visitor's requests. Answers may overtake each other, and only that to the last one counts."""

    last: int = 0

    def take(self) -> int:
        """The number of a new request."""
        self.last += 1
        return self.last


Upload: TypeAlias = "Mapping[str, Any] | None"

WELCOME = (
    '<div class="welcome"><p class="caption">What does it see?</p><p>Give it an image, and it writes a '
    "sentence about it. The image stays on this server for an hour at most and goes nowhere else.</p></div>"
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

    image: gr.Image
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
        image = gr.Image(
            type="filepath",
            sources=["upload", "clipboard", "webcam"],
            label="Your image",
            placeholder="Drop an image here\nor click to choose one",
            buttons=["fullscreen"],
            alt_text="The image to caption",
            height=340,
            elem_id="picture",
        )
        no_addresses(image)
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
    return _Parts(image, buttons, controls, result, decisions, own, compare, comparison)


def _own_sentence() -> tuple[gr.Textbox, gr.Button, gr.HTML]:
    with gr.Accordion("Compare with a sentence of your own", open=False, elem_id="own"):
        text = gr.Textbox(
            label="Your sentence about the image",
            placeholder="two dogs look out of a window",
            info="The model says how probable it finds it, and which words it did not expect.",
            max_lines=3,
        )
        button = gr.Button("Compare", variant="primary", elem_id="compare")
        comparison = gr.HTML(elem_id="comparison", apply_default_css=False)
    return text, button, comparison


def _captioning(service: Service, parts: _Parts, samples: Mapping[str, Sample]) -> None:
    image, controls = parts.image, parts.controls
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
        path = save_file_to_cache(sample.path, cache_dir=image.GRADIO_CACHE)
        for update in respond(turns, {"path": path, "orig_name": sample.path.name}, *choices):
            yield path, *update

    image.input(respond, [turns, image, *controls.values], [*shown, parts.comparison], **_MODEL_EVENT)
    parts.samples.select(
        respond_to_sample, [turns, *controls.values], [image, *shown, parts.comparison], **_MODEL_EVENT
    )
    # Input is what the visitor does; the page sets defaults too, which is no reason to caption again.
    changes = [control.input for control in controls.values if control is not controls.weights]
    gr.on(changes, respond_again, [turns, image, *controls.values], shown, **_MODEL_EVENT)
    controls.weights.input(
        lambda weights: suited(service, weights),
        controls.weights,
        [controls.beam_size, controls.max_length],
        **_MODEL_EVENT,
    ).then(respond_again, [turns, image, *controls.values], shown, **_MODEL_EVENT)


def _comparing(service: Service, parts: _Parts) -> None:
    def compare_own(upload: Upload, text: str, *choices: Any) -> str:
        return score_sentence(service, upload, text, choices)

    gr.on(
        [parts.own.submit, parts.compare.click],
        compare_own,
        [parts.image, parts.own, *parts.controls.values],
        parts.comparison,
        **_MODEL_EVENT,
    )


def busy_text(service: Service) -> str:
    """What a visitor reads while the model works."""
    if service.models.status.state == "loading":
        return "The model is still loading. The caption will come right after."
    return "Looking at the image\N{HORIZONTAL ELLIPSIS}"
