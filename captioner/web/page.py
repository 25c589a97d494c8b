"""The page: a header that shows the state of the model, and a tab for each use; and the application that serves it."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from html import escape
from typing import Any

import gradio as gr
from fastapi import FastAPI, Response
from starlette.routing import Route

from captioner import CaptionerError, __version__
from captioner.web import api, gradio_fixes, many, render, settings, single
from captioner.web.options import ServingOptions
from captioner.web.service import Service

_SWEEP = 60  # seconds between two searches for uploads that are old enough to be removed
_POLL = 0.2  # seconds
_MOST_EVENTS = 1000  # of all kinds that Gradio keeps; those for the model are fewer
# Gradio keeps a description of the whole page, 0.3 MB, for each visitor and for each request of a program.
_MOST_SESSIONS = 1000
_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]


def build_app(service: Service, options: ServingOptions, users: list[tuple[str, str]] | None = None) -> FastAPI:
    """Build the application: the page at ``/``, ``/health``, ``/metrics``, and ``/mcp`` if ``options`` ask for it.

    Args:
        service: the model; it may still be loading.
        options: how to serve.
        users: names and passwords of those who may come in; None for everybody.

    Raises:
        CaptionerError: a package is absent.
    """
    metrics = api.Metrics(lambda: service.waiting)
    page = build_page(service, add_endpoints=lambda: api.add_endpoints(service, metrics))
    page.queue(max_size=_MOST_EVENTS, default_concurrency_limit=None)
    page.state_session_capacity = _MOST_SESSIONS
    # Gradio checks that the files of a request were uploaded only if its page was launched.
    page.has_launched = True
    gradio_fixes.guard(page)
    gradio_fixes.refuse_beyond(page, options.queue_size, lambda: service.waiting, metrics.refused)
    app = _routes(service, options, metrics, users)
    app.add_middleware(gradio_fixes.DrainUploads, most=10 * options.max_upload_bytes)
    app.add_middleware(gradio_fixes.CountStreamEnds)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=options.host,
        server_port=options.port,
        footer_links=["api"],
        run_history=False,
        auth=users,
        root_path=options.root_path or None,
        max_file_size=options.max_upload_bytes,
        show_error=True,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        **look(),
    )
    return mounted


def _routes(
    service: Service, options: ServingOptions, metrics: api.Metrics, users: list[tuple[str, str]] | None
) -> FastAPI:
    """Build what is served beside the page."""
    closed: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    if options.mcp:
        try:
            from captioner.web.mcp import PATH, BasicAuth, build_tools
        except ModuleNotFoundError as error:
            raise CaptionerError("`mcp` needs the package mcp", "run: pip install 'captioner[mcp]'") from error
        tools = build_tools(service, metrics, options)
        app = FastAPI(**closed, lifespan=tools.router.lifespan_context)
        app.router.routes.append(Route(PATH, BasicAuth(tools, users) if users else tools))
    else:
        app = FastAPI(**closed)

    @app.get("/health")
    def health(response: Response) -> dict[str, str | None]:
        models = service.models
        state = models.status.state
        response.status_code = 200 if state == "ready" else 503
        return {"status": state, "version": __version__, "weights": models.default or None, "digest": models.digest}

    @app.get("/metrics")
    def figures() -> Response:
        return Response(metrics.text(), media_type=api.CONTENT_TYPE)

    return app


def build_page(service: Service, *, add_endpoints: Callable[[], None] | None = None) -> gr.Blocks:
    """Build the page, ready to be launched with :func:`look`.

    Args:
        service: the model; it may still be loading.
        add_endpoints: called inside the page, to add what programs use.
    """
    page: gr.Blocks
    cache = (_SWEEP, gradio_fixes.KEPT - _SWEEP)
    with gr.Blocks(title="captioner", analytics_enabled=False, delete_cache=cache) as page:
        with gr.Row(elem_id="top"):
            gr.HTML(render.static("header.html"), apply_default_css=False)
            status = gr.HTML(status_line(service), elem_id="status", apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("One image"):
                controls = single.single_tab(service)
            with gr.Tab("Many images"):
                many.many_tab(service, controls)
            with gr.Tab("About"), gr.Column(elem_id="about"):
                facts = gr.HTML(elem_id="facts", apply_default_css=False)
                card = gr.Markdown(elem_id="card", buttons=[])

        async def when_ready() -> AsyncIterator[tuple[Any, ...]]:
            yield status_line(service), *[gr.skip()] * 5
            while service.models.status.state == "loading":
                await asyncio.sleep(_POLL)
            names = service.models.weights
            listed = gr.update(choices=names, value=names[0], visible=len(names) > 1) if names else gr.skip()
            yield status_line(service), about_facts(service), model_card(service), *settings.suited(service), listed

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
    """Say how the model is, in a few words."""
    status = service.models.status
    return f'<p class="status {status.state}" role="status">{status.message}</p>'


def about_facts(service: Service, weights: str | None = None) -> str:
    """Show the weights in figures, as HTML; or why there are none."""
    try:
        about = service.models.about(weights)
    except CaptionerError as error:
        return render.notice(render.for_visitor(error))
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
    """Give the model card as Markdown, one level of headings deeper; or what the checkpoint says of its training."""
    try:
        about = service.models.about(weights)
    except CaptionerError:
        return ""
    if not about.card:
        notes = "\n".join(f"    {key}: {value}" for key, value in about.training.items())
        return f"## Training\n\nThere is no model card; the checkpoint says:\n\n{notes or '    nothing'}"
    lines = []
    code = False
    for line in about.card.splitlines():
        code ^= line.startswith("```")
        lines.append(f"#{line}" if line.startswith("#") and not code else line)
    # Links to files beside the card do not work here.
    return re.sub(r"\[([^\]]*)\]\((?!https?://)[^)]*\)", r"\1", "\n".join(lines))


def look() -> dict[str, Any]:
    """Give the theme, style sheet and script of the page; all fonts are those of the visitor's machine."""
    theme = gr.themes.Base(font=_SANS, font_mono=_MONO, text_size=gr.themes.sizes.text_md)
    # Gradio paints the body before it has the style sheet, which its login page never gets: there its own colours stay.
    theme.set(
        body_background_fill="var(--paper, white)",
        body_background_fill_dark="var(--paper, #0f0f11)",
        body_text_color="var(--ink, #27272a)",
        body_text_color_dark="var(--ink, #f4f4f5)",
    )
    return {"theme": theme, "css": render.static("style.css"), "head": f"<script>{render.static('page.js')}</script>"}
