"""What a visitor may choose, within bounds that keep a server alive, and the controls for it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import gradio as gr

from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.options import check, option, typed_fields
from captioner.web.service import Service

SILENT: Any = {"show_progress": "hidden", "api_visibility": "private"}
"""How the page asks the server: without Gradio's spinners, and not for programs."""
METHODS = ("beam", "greedy", "sample")
_METHOD_LABELS = ("Most probable (beam search)", "Word by word (greedy)", "Varied (sampling)")
_MOST_BEAMS = 10
_LONGEST_CAPTION = 50


@dataclass(frozen=True)
class Settings:
    """A visitor's choices; None stands for what suits the weights.

    Raises:
        OptionError: a value is out of its bounds, or not a number.
    """

    method: str = option(
        "beam", "beam keeps several captions in the making, greedy only the best, sample draws words", choices=METHODS
    )
    beam_size: int | None = option(None, "captions that beam search keeps in the making", low=1, high=_MOST_BEAMS)
    temperature: float = option(0.8, "of sampling; lower keeps to likely words, higher is more varied", low=0.1, high=2)
    top_p: float = option(
        0.9, "sample only from the likeliest words that together have this probability", low=0.05, high=1
    )
    draws: int = option(5, "captions to sample", low=1, high=10)
    max_length: int | None = option(None, "most words of a caption", low=1, high=_LONGEST_CAPTION)
    seed: int = option(0, "of sampling; the same seed gives an image the same captions", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        for item, kind in typed_fields(type(self)):
            value = getattr(self, item.name)
            if kind is int and isinstance(value, float) and value.is_integer():  # as sliders give it
                object.__setattr__(self, item.name, int(value))
        check(self)

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Settings":
        """Make settings from the values of all fields in their order.

        Raises:
            OptionError: as the class.
        """
        return cls(**dict(zip((item.name for item in fields(cls)), values, strict=True)))

    def options(self, base: DecodingOptions) -> DecodingOptions:
        """Change the decoding options of the weights as chosen.

        Searching lists as many captions as the beam holds, which leaves the first of them as it is.
        """
        length = base.max_length if self.max_length is None else self.max_length
        # An empty caption would say nothing to a visitor.
        base = replace(base, max_length=length, min_length=max(1, min(base.min_length, length)), top_k=0)
        if self.method == "sample":
            return replace(
                base, temperature=self.temperature, top_p=self.top_p, num_captions=self.draws, seed=self.seed
            )
        beams = 1 if self.method == "greedy" else self.beam_size or base.beam_size
        return replace(base, temperature=None, top_p=1.0, beam_size=beams, num_captions=beams)


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
        return [getattr(self, item.name) for item in fields(self)]


def read_choices(choices: Sequence[Any]) -> tuple[Settings, str | None]:
    """Read settings and the name of weights from the values of :attr:`Controls.values`; raises as :class:`Settings`."""
    *values, weights = choices
    settings = Settings.of(values)
    if weights:
        return settings, str(weights)
    # The page was opened just now, and the controls do not show yet what suits the weights.
    return replace(settings, beam_size=None, max_length=None), None


def suited(service: Service, weights: str | None = None) -> tuple[Any, Any]:
    """Update beam size and longest caption to what suits some weights best."""
    try:
        options = service.options(weights)
    except CaptionerError:  # reported when an image is captioned
        return gr.skip(), gr.skip()
    beams, length = min(options.beam_size, _MOST_BEAMS), min(options.max_length, _LONGEST_CAPTION)
    return gr.update(value=beams), gr.update(value=length)


def build_controls() -> Controls:
    """Lay the controls out, folded away. What suits the weights is set when they are loaded."""
    metadata = {item.name: item.metadata for item in fields(Settings)}

    def slider(name: str, label: str, value: float, step: float = 1) -> gr.Slider:
        about = metadata[name]
        info = about["help"][:1].upper() + about["help"][1:] + "."
        return gr.Slider(about["low"], about["high"], value, step=step, label=label, info=info)

    with gr.Accordion("Settings", open=False, elem_id="settings"):
        method = gr.Radio(
            [*zip(_METHOD_LABELS, METHODS, strict=True)],
            value="beam",
            label="How to write",
            info="How the words are chosen from probabilities.",
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
        **SILENT,
    )
    return Controls(method, beam_size, temperature, top_p, draws, max_length, seed, weights)
