"""The page: a header that says how the model is, and a tab for each thing that a visitor can do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from captioner.errors import CaptionerError
from captioner.web import render
from captioner.web.gradio_fixes import KEPT
from captioner.web.many_tab import many_tab
from captioner.web.messages import for_visitor
from captioner.web.one_tab import single_tab, suited

if TYPE_CHECKING:
    from captioner.web.models import About
    from captioner.web.service import Service


def about_facts(service: Service, weights: str | None = None) -> str:
    """The weights in figures, as HTML; or why there are none."""
    try:
        about = service.models.about(weights)
    except CaptionerError as error:
        return render.notice(for_visitor(error))
    facts = {
        "Weights": about.name,
        "Digest": about.digest,
        "Parameters": f"{about.parameters / 1e6:.1f} million",
        "Size": f"{about.megabytes:.1f} MB",
        "Words it knows": f"{about.words:,}",
        "Loaded in": f"{service.models.status.seconds:.1f} s",
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<h2>This model</h2><dl class="facts">{rows}</dl>'


def model_card(service: Service, weights: str | None = None) -> str:
    """The model card as Markdown, one level of headings deeper; else how the weights came about."""
    try:
        about = service.models.about(weights)
    except CaptionerError:
        return ""
    if not about.card:
        return _training_notes(about)
    lines = []
    code = False
    for line in about.card.splitlines():
        code ^= line.startswith("```")
        lines.append(f"#{line}" if line.startswith("#") and not code else line)
    # Links to files beside the card lead nowhere from here.
    return re.sub(r"\[([^\]]*)\]\((?!https?://)[^)]*\)", r"\1", "\n".join(lines))


def _training_notes(about: About) -> str:
    notes = "\n".join(f"    {key}: {value}" for key, value in about.training.items())
    return f"## How it came about\n\nThere is no model card; the checkpoint says:\n\n{notes or '    nothing'}"


_SWEEP = 60  # seconds between two looks for uploads that are old enough to be removed
_POLL = 0.2  # seconds
_HEADER = """
<div class="masthead">
  <svg viewBox="0 0 44 44" fill="none" stroke="currentColor" stroke-width="3.5" aria-hidden="true">
    <path d="M3 13V7a4 4 0 0 1 4-4h6M31 3h6a4 4 0 0 1 4 4v6"/>
    <path d="M41 31v6a4 4 0 0 1-4 4h-6M13 41H7a4 4 0 0 1-4-4v-6"/>
    <path d="M12 18h20M12 26h12" stroke-linecap="round"/>
  </svg>
  <div><h1>captioner</h1><p>An image goes in, a sentence comes out.</p></div>
</div>
"""


def build_page(service: Service, *, add_endpoints: Callable[[], None] | None = None) -> gr.Blocks:
    """The page, ready to be launched with :func:`captioner.web.theme.look`.

    Args:
        service: the model; it may still be loading.
        add_endpoints: called inside the page, so that it can add what programs use.
    """
    page: gr.Blocks
    with gr.Blocks(title="captioner", analytics_enabled=False, delete_cache=(_SWEEP, KEPT - _SWEEP)) as page:
        with gr.Row(elem_id="top"):
            gr.HTML(_HEADER, apply_default_css=False)
            status = gr.HTML(status_line(service), elem_id="status", apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("One image"):
                controls = single_tab(service)
            with gr.Tab("Many images"):
                many_tab(service, controls)
            with gr.Tab("About"), gr.Column(elem_id="about"):
                facts = gr.HTML(elem_id="facts", apply_default_css=False)
                card = gr.Markdown(elem_id="card", buttons=[])

        async def when_ready() -> AsyncIterator[tuple[Any, ...]]:
            yield status_line(service), *[gr.skip()] * 5
            while service.models.status.state == "loading":
                await asyncio.sleep(_POLL)
            yield status_line(service), about_facts(service), model_card(service), *_defaults(service)

        controls.weights.input(
            lambda weights: (about_facts(service, weights), model_card(service, weights)),
            controls.weights,
            [facts, card],
            show_progress="hidden",
            api_visibility="private",
        )
        page.load(
            when_ready,
            None,
            [status, facts, card, controls.beam_size, controls.max_length, controls.weights],
            show_progress="hidden",
            concurrency_limit=None,
            api_visibility="private",
        )
        if add_endpoints is not None:
            add_endpoints()
    return page


def status_line(service: Service) -> str:
    """How the model is, in a few words."""
    status = service.models.status
    return f'<p class="status {status.state}" role="status">{status.message}</p>'


def _defaults(service: Service) -> tuple[Any, Any, Any]:
    """Updates of beam size, longest caption, and the list of weights, which is shown if there are several."""
    names = service.models.weights
    listed = gr.update(choices=names, value=names[0], visible=len(names) > 1) if names else gr.skip()
    return *suited(service), listed
