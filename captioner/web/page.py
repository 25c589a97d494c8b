"""The page: a header that says how the model is, and a tab for each thing that a visitor can do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from captioner.web.about import about_facts, model_card
from captioner.web.controls import suited
from captioner.web.many_tab import many_tab
from captioner.web.single_tab import single_tab
from captioner.web.uploads import KEPT

if TYPE_CHECKING:
    from captioner.web.service import Service

_SWEEP = 60  # seconds between two looks for uploads that are old enough to be removed
_POLL = 0.2  # seconds
_HEADER = """
<div class="masthead">
  <svg viewBox="0 0 44 44" fill="none" stroke="currentColor" stroke-width="3.5" aria-hidden="true">
    <path d="M3 13V7a4 4 0 0 1 4-4h6M31 3h6a4 4 0 0 1 4 4v6"/>
    <path d="M41 31v6a4 4 0 0 1-4 4h-6M13 41H7a4 4 0 0 1-4-4v-6"/>
    <path d="M12 18h20M12 26h12" stroke-linecap="round"/>
  </svg>
  <div><h1>captioner</h1><p>A photograph goes in, a sentence comes out.</p></div>
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
            with gr.Tab("One picture"):
                controls = single_tab(service)
            with gr.Tab("Many pictures"):
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
