"""The controls of the settings: how they look, and what their values mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from captioner.errors import CaptionerError
from captioner.web.settings import LONGEST_CAPTION, MOST_BEAMS, Settings

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
    except CaptionerError:  # told when a picture is captioned
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
            seed = gr.Number(
                0, label="Seed", info="The same seed draws the same captions again.", precision=0
            )
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
