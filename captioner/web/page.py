"""The page: a header that shows the state of the model, and a tab for each use; and the application that serves it."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request, Response, Security, exceptions, responses, security
from jinja2 import ChoiceLoader, DictLoader

from captioner import CaptionerError, __version__
from captioner.web import api, gate, gradio_fixes, many, render, settings, single, uploads
from captioner.web.options import ServingOptions
from captioner.web.service import Service

_SWEEP = 60  # seconds between two searches for uploads that are old enough to be removed
_POLL = 0.2  # seconds
_MOST_EVENTS = 300  # of all kinds that are under way; those for the model are fewer
# Gradio keeps a description of the whole page, 0.3 MB, for each visitor and for each request of a program
# (gradio-app/gradio#11602).
_MOST_SESSIONS = 100
_MOST_UPLOADS = 10, 25  # of the largest size, kept for a visitor, and for all
# What is not ours: of ours, other methods are answered by our routes.
_PAGE = "^(?!/(?:api/|(?:docs|health|metrics|mcp)$))/(?P<path>.*)$"
_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]


def build_app(service: Service, options: ServingOptions, users: list[tuple[str, str]] | None = None) -> FastAPI:
    """Build the application: the page, the routes for programs and the tools over a model that may still be loading.

    ``users`` are names and passwords of those who may come in; None for everybody.

    Raises:
        CaptionerError: a package is absent.
    """
    metrics = api.Metrics(lambda: service.waiting)
    page = build_page(service, metrics)
    # All events run at once: the service alone decides who waits.
    page.max_threads = _MOST_EVENTS
    page.queue(max_size=_MOST_EVENTS, default_concurrency_limit=None, api_open=False)
    page.state_session_capacity = _MOST_SESSIONS
    # Only of a page that was launched Gradio checks that files were uploaded. This is no public issue; an unchecked
    # record could name any file of the server.
    page.has_launched = True
    gradio_fixes.guard(page)
    _speak_without_scripts()
    app = _routes(service, options, metrics, users)
    largest = options.max_upload_bytes
    kept = uploads.Uploads(Path(gr.utils.get_upload_folder()), *(times * largest for times in _MOST_UPLOADS))
    app.add_middleware(gate.Gate, options, users, kept)
    without = ("run_history", "ssr_mode", "enable_monitoring", "pwa", "mcp_server")
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=options.host,
        server_port=options.port,
        footer_links=["api"],
        auth=users,
        root_path=options.root_path or None,
        max_file_size=largest,
        show_error=True,
        **dict.fromkeys(without, False),
        **look(),
    )
    at_root: Any = mounted.routes[-1]
    at_root.path_regex = re.compile(_PAGE)
    _answer_in_sentences(at_root.app, detail=True)
    return mounted


def _routes(
    service: Service, options: ServingOptions, metrics: api.Metrics, users: list[tuple[str, str]] | None
) -> FastAPI:
    """Build what is served beside the page."""
    described: dict[str, Any] = {
        "title": "captioner",
        "version": __version__,
        "description": "Captions for images.",
        "servers": [{"url": options.root_path or "/"}],
        "docs_url": None,
        "redoc_url": None,
        "redirect_slashes": False,
    }
    tools: Any = None
    if options.mcp:
        try:
            from captioner.web.mcp import PATH, build_tools
        except ModuleNotFoundError as error:
            raise CaptionerError("`mcp` needs the package mcp", "run: pip install 'captioner[mcp]'") from error
        tools = build_tools(service, metrics, options)
    app = FastAPI(**described, lifespan=tools and tools.router.lifespan_context)
    if tools:
        app.add_route(PATH, tools)
    _answer_in_sentences(app)
    # The gate has asked for the password already; this names it in the description, and reads none.
    password = Security(security.http.HTTPBase(scheme="basic", scheme_name="HTTPBasic", auto_error=False))
    app.include_router(api.routes(service, metrics, options), dependencies=[password] if users else [])

    @app.get("/docs", include_in_schema=False)
    def docs() -> responses.HTMLResponse:
        return responses.HTMLResponse(render.static("docs.html"))

    @app.get("/health", responses={503: {"description": "there is no model yet"}})
    def health(response: Response) -> dict[str, str | None]:
        models = service.models
        state = models.status.state
        response.status_code = 200 if state == "ready" else 503
        digest = models.load().digest if state == "ready" else None
        return {"status": state, "version": __version__, "weights": models.default or None, "digest": digest}

    @app.get("/metrics", response_class=responses.PlainTextResponse)
    def figures() -> Response:
        return Response(metrics.text(), media_type=api.CONTENT_TYPE)

    return app


@cache
def _speak_without_scripts() -> None:
    """Put a sentence into Gradio's page, which is empty without JavaScript."""
    templates, name = gr.routes.templates.env, "frontend/index.html"
    assert templates.loader is not None
    page, *_ = templates.loader.get_source(templates, name)
    page = page.replace("<gradio-app", f"{render.static('noscript.html')}<gradio-app", 1)
    templates.loader = ChoiceLoader([DictLoader({name: page}), templates.loader])


def _answer_in_sentences(app: FastAPI, *, detail: bool = False) -> None:
    """Answer failures with ``{"error": "..."}``; Gradio's clients look for ``detail``."""

    def answer(status: int, text: str) -> Callable[[Request, Exception], responses.JSONResponse]:
        def answered(_: Request, error: Exception) -> responses.JSONResponse:
            code, said = getattr(error, "status_code", status), getattr(error, "detail", text)
            content = {"error": gate.sentence(said)} | ({"detail": said} if detail else {})
            headers = getattr(error, "headers", None) or ({"retry-after": "1"} if code == 503 else None)
            return responses.JSONResponse(content, code, headers)

        return answered

    app.add_exception_handler(gate.HTTPException, answer(500, ""))
    # What Gradio raises for fields that are absent, unknown or impossible.
    kinds = exceptions.RequestValidationError, LookupError, TypeError, ValueError, gr.route_utils.FnIndexInferError
    for kind in kinds:
        app.add_exception_handler(kind, answer(400, "The request has not the fields that it should have; see /docs."))
    app.add_exception_handler(Exception, answer(500, "Something went wrong on the server, and its log says what."))


def build_page(service: Service, metrics: api.Metrics | None = None) -> gr.Blocks:
    """Build the page, ready to be launched with :func:`look`; with metrics, what Gradio's client calls is added."""
    page: gr.Blocks
    cache = (_SWEEP, uploads.KEPT - _SWEEP)
    with gr.Blocks(title="captioner", analytics_enabled=False, delete_cache=cache) as page:
        with gr.Row(elem_id="top"):
            gr.HTML(render.static("header.html"), apply_default_css=False)
            status = gr.HTML(status_line(service), elem_id="status", apply_default_css=False)
        with gr.Tabs(overflow_behavior="wrap"):  # their ids are in the address
            with gr.Tab("One image", id="one"):
                controls = single.single_tab(service)
            with gr.Tab("Many images", id="many"):
                many.many_tab(service, controls)
            with gr.Tab("About", id="about"), gr.Column(elem_id="about"):
                facts = gr.HTML(elem_id="facts", apply_default_css=False)
                card = gr.Markdown(elem_id="card", buttons=[])
        gr.HTML('<a href="docs" target="_blank">Use via API</a>', elem_id="api", apply_default_css=False)

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
            **settings.SILENT,
        )
        shown = [status, facts, card, controls.beam_size, controls.max_length, controls.weights]
        page.load(when_ready, None, shown, **settings.SILENT)
        if metrics is not None:
            api.add_functions(service, metrics)
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
    lines, code = list[str](), False
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
    head = "".join(f"<script>{render.static(name)}</script>" for name in ("page.js", "downloads.js"))
    return {"theme": theme, "css": render.static("style.css"), "head": head}
