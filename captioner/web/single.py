"""The tab for one image: its captions, how the best came about, and how a visitor's own sentence compares."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import gradio as gr

from captioner.images.draw import data_uri, make_thumbnail
from captioner.web import gradio_fixes, render, uploads
from captioner.web.service import Prepared, Service
from captioner.web.settings import SILENT, Controls, Settings, build_controls, read_choices, suited

Upload: TypeAlias = Mapping[str, Any] | None
"""Gradio's record of a file, with ``path`` and ``orig_name``; None if there is none."""

Shown: TypeAlias = tuple[Upload, str | None, render.Answer]
"""An image, the name of the weights, and the answer."""

FOLDER = Path(__file__).resolve().parents[2] / "data" / "samples"
WELCOME = (
    '<div class="welcome"><p class="caption">What does it see?</p><p>Give it an image, and it writes a '
    "sentence about it. The image stays on this server for an hour at most and goes nowhere else.</p></div>"
)
_RUNNERS_UP = 4  # the word itself is often among them
_SAMPLE_SIDE = 160  # pixels
# What data/samples/README.md says that they show.
_SAMPLES = {
    "astronaut": "an astronaut",
    "bee": "a bee on a purple flower",
    "bridge": "a suspension bridge at night",
    "cat": "the face of a cat",
    "citrus": "slices of citrus fruits",
    "coffee": "a cup of coffee",
    "dogs": "two dogs at a window",
    "mountains": "a meadow before mountains",
    "pagoda": "a pagoda above a lake",
    "photographer": "a man with a camera",
    "rocket": "a rocket on its launch pad",
    "tulips": "a field of tulips",
}
# Of one visitor only the last counts.
_MODEL_EVENT: dict[str, Any] = SILENT | {
    "preprocess": False,  # files as they were uploaded: our own reader knows what can be wrong with them
    "trigger_mode": "always_last",
}


def prepare_upload(service: Service, upload: Upload, weights: str | None = None) -> Prepared:
    """Prepare a file that Gradio received.

    Raises:
        CaptionerError: there is no image, or it cannot be read; the message is for the visitor.
    """
    path = gradio_fixes.uploaded_file(upload)
    return service.prepare(path, name=gradio_fixes.uploaded_name(upload), weights=weights)


def answer(service: Service, upload: Upload, settings: Settings, weights: str | None = None) -> render.Answer:
    """Caption an uploaded image with the weights of a name, or the default ones.

    Raises:
        CaptionerError: as :func:`prepare_upload`.
    """
    start = time.perf_counter()
    image = prepare_upload(service, upload, weights)
    options = settings.options(service.options(weights))
    return render.Answer(tuple(service.caption(image, options)), options, time.perf_counter() - start)


@dataclass
class Visit:
    """What is known of a visitor's page. Answers may overtake each other, and only that to the last request counts."""

    last: int = 0  # request
    explaining: bool = False  # whether "How it decided" is open
    shown: Shown | None = None

    def take(self) -> int:
        """Number a new request."""
        self.last, self.shown = self.last + 1, None
        return self.last


def caption_upload(service: Service, upload: Upload, choices: Sequence[Any]) -> tuple[str, Shown | None]:
    """Answer a visitor who chose ``Controls.values`` with a caption, as HTML; and say what is then shown."""
    if not upload:
        return WELCOME, None
    try:
        settings, weights = read_choices(choices)
        found = answer(service, upload, settings, weights)
    except Exception as error:
        return render.notice(render.for_visitor(error)), None
    return render.answer_card(found), (upload, weights, found)


def explain(service: Service, visit: Visit) -> str:
    """Show the decisions behind the caption on the page, as HTML; nothing where there is none."""
    if visit.shown is None:
        return ""
    upload, weights, found = visit.shown
    try:
        image = prepare_upload(service, upload, weights)
        # From the words, not from the sentence: these go through the tokeniser unchanged.
        words = " ".join(found.captions[0].words)
        return render.decisions(service.score(image, words, runners_up=_RUNNERS_UP, attention=True), image.pixels)
    except Exception as error:
        return render.notice(render.for_visitor(error))


def score_sentence(service: Service, visit: Visit, upload: Upload, text: str, choices: Sequence[Any]) -> str:
    """Compare a visitor's sentence with the model's caption, as HTML."""
    try:
        settings, weights = read_choices(choices)
        own = service.score(prepare_upload(service, upload, weights), text)
        best = (visit.shown[2] if visit.shown else answer(service, upload, settings, weights)).captions[0]
        return render.comparison_card(own, best)
    except Exception as error:
        return render.notice(render.for_visitor(error))


def busy_text(service: Service) -> str:
    """Say what the model is busy with."""
    if service.models.status.state == "loading":
        return "The model is still loading. The caption will come right after."
    return "Looking at the image\N{HORIZONTAL ELLIPSIS}"


def find_samples(folder: Path = FOLDER) -> dict[str, Path]:
    """Find the sample images by name; none where the project's data are not installed."""
    files = sorted(folder.glob("*.*"))
    return {file.stem: file for file in files if file.stem in _SAMPLES and file.suffix in (".jpg", ".png")}


def sample_buttons(samples: Mapping[str, Path]) -> str:
    """Show the samples as a row of buttons."""
    buttons = "".join(
        f'<li><button type="button" data-sample="{name}">'
        f'<img src="{data_uri(make_thumbnail(path, _SAMPLE_SIDE))}" alt="Sample: {_SAMPLES[name]}"></button></li>'
        for name, path in samples.items()
    )
    return f'<h2>Or try one of these</h2><ul class="samples">{buttons}</ul>'


def single_tab(service: Service) -> Controls:
    """Lay out the tab and say what happens in it."""
    samples = find_samples()
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
        with gr.Column(elem_id="answer-side"):
            result = gr.HTML(WELCOME, elem_id="answer", apply_default_css=False)
            # These two are hidden by the style sheet while there is no caption: what Gradio is told to show
            # while it still loads the page may never appear.
            with gr.Accordion("How it decided", open=False, elem_id="decided") as decided:
                reasons = gr.HTML(elem_id="decisions", apply_default_css=False)
            with gr.Accordion("Compare with a sentence of your own", open=False, elem_id="own"):
                own = gr.Textbox(
                    label="Your sentence about the image",
                    placeholder="two dogs look out of a window",
                    info="The model says how probable it finds it, and which words it did not expect.",
                    max_lines=3,
                )
                button = gr.Button("Compare", variant="primary", elem_id="compare")
                comparison = gr.HTML(elem_id="comparison", apply_default_css=False)
        with gr.Column(elem_id="samples-side"):
            buttons = gr.HTML(
                sample_buttons(samples),
                js_on_load=render.static("samples.js"),
                visible=bool(samples),
                elem_id="samples",
                apply_default_css=False,
            )
            controls = build_controls()
    visit = gr.State(Visit(), time_to_live=uploads.KEPT)
    decided.expand(lambda visit: unfold(service, visit), visit, reasons, **_MODEL_EVENT)
    decided.collapse(fold, visit, None, api_visibility="private")
    _caption_on_events(service, visit, controls, image, (buttons, samples), [result, reasons, comparison])
    gr.on(
        [own.submit, button.click],
        lambda visit, upload, text, *choices: score_sentence(service, visit, upload, text, choices),
        [visit, image, own, *controls.values],
        comparison,
        **_MODEL_EVENT,
    )
    return controls


def unfold(service: Service, visit: Visit) -> str:
    """Show the decisions from now on."""
    visit.explaining = True
    return explain(service, visit)


def fold(visit: Visit) -> None:
    """Compute no more decisions."""
    visit.explaining = False


def _caption_on_events(
    service: Service,
    visit: gr.State,
    controls: Controls,
    image: gr.Image,
    samples: tuple[gr.HTML, Mapping[str, Path]],
    outputs: list[gr.HTML],
) -> None:
    buttons, files = samples

    def respond(visit: Visit, upload: Upload, *choices: Any, again: bool = False) -> Iterator[tuple[Any, ...]]:
        turn = visit.take()
        if upload and not again:
            yield render.notice(busy_text(service), kind="busy"), gr.skip(), ""
        card, shown = caption_upload(service, upload, choices)
        if turn == visit.last:
            visit.shown = shown
            yield card, "", gr.skip() if upload else ""
        if turn == visit.last and visit.explaining:
            yield gr.skip(), explain(service, visit), gr.skip()
        # Gradio sends the last values once more at the end, which must not undo what came in between.
        yield (gr.skip(),) * 3

    def respond_again(visit: Visit, upload: Upload, *choices: Any) -> Iterator[tuple[Any, ...]]:
        yield from respond(visit, upload, *choices, again=True) if upload else [(gr.skip(),) * 3]

    def respond_to_sample(event: gr.EventData, visit: Visit, *choices: Any) -> Iterator[tuple[Any, ...]]:
        file = files[event.name]
        path = gr.processing_utils.save_file_to_cache(file, cache_dir=image.GRADIO_CACHE)
        for update in respond(visit, {"path": path, "orig_name": file.name}, *choices):
            yield path, *update

    chosen = [visit, image, *controls.values]
    image.input(respond, chosen, outputs, **_MODEL_EVENT)
    buttons.select(respond_to_sample, [visit, *controls.values], [image, *outputs], **_MODEL_EVENT)
    # Input is what the visitor does; the page sets defaults too, which is no reason to caption again.
    changes = [control.input for control in controls.values if control is not controls.weights]
    gr.on(changes, respond_again, chosen, outputs, **_MODEL_EVENT)
    controls.weights.input(
        lambda weights: suited(service, weights),
        controls.weights,
        [controls.beam_size, controls.max_length],
        **_MODEL_EVENT,
    ).then(respond_again, chosen, outputs, **_MODEL_EVENT)
