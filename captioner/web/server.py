"""The page and what programs use, as one web server."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from captioner import __version__
from captioner.errors import CaptionerError
from captioner.options import with_flags
from captioner.web.auth import AskingPassword, check_certificate, read_users
from captioner.web.options import LOCAL_HOSTS, ServingOptions

if TYPE_CHECKING:
    import gradio as gr
    from fastapi import FastAPI
    from starlette.applications import Starlette

    from captioner.web.metrics import Metrics
    from captioner.web.service import Service


_MOST_EVENTS = 1000  # of all kinds that Gradio keeps; those for the model are fewer
# Gradio keeps a description of the whole page, 0.3 MB, for each visitor and for each request of a program.
_MOST_SESSIONS = 1000


def serve(options: ServingOptions) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Raises:
        CaptionerError: something that the options name cannot be used, or the address is taken.
    """
    users = None if options.auth_file is None else read_users(Path(options.auth_file))
    if options.ssl_certfile is not None and options.ssl_keyfile is not None:
        check_certificate(options.ssl_certfile, options.ssl_keyfile)
    if options.host not in LOCAL_HOSTS and users is None:
        _say(f"warning: everybody who reaches {options.host} can use the page; `auth_file` asks for a password")
    with _listening(options) as listener, private_uploads():
        service = _build_service(options)
        app = build_app(service, options, users)
        scheme = "http" if options.ssl_certfile is None else "https"
        name = f"[{options.host}]" if ":" in options.host else options.host
        address = f"{scheme}://{name}:{listener.getsockname()[1]}{options.root_path}"
        tools = f", and MCP tools at {address}/mcp" if options.mcp else ""
        _say(f"the page is at {address}{tools}; Ctrl-C ends")
        service.models.start()  # not earlier: importing torch would hold up the page
        _run(app, listener, options)


def _build_service(options: ServingOptions) -> Service:
    from captioner.web.service import Service

    return Service(
        options.weights,
        max_batch_size=options.max_batch_size,
        queue_size=options.queue_size,
        timeout=options.timeout,
    )


def build_app(service: Service, options: ServingOptions, users: list[tuple[str, str]] | None = None) -> FastAPI:
    """The page at ``/``, ``/health``, ``/metrics``, and ``/mcp`` if it is asked for.

    Args:
        service: the model; it may still be loading.
        options: how to serve.
        users: names and passwords of those who may come in; None for everybody.

    Raises:
        CaptionerError: a package is absent.
    """
    try:
        from fastapi import FastAPI
        from starlette.routing import Route

        from captioner.web.api import add_endpoints
        from captioner.web.gradio_fixes import CountsEnds, HearingOut, guard, refuse_beyond
        from captioner.web.metrics import Metrics
        from captioner.web.page import build_page
    except ModuleNotFoundError as error:
        raise CaptionerError(f"the page needs {error.name}", "run: pip install 'captioner[app]'") from error
    metrics = Metrics(lambda: service.waiting)
    page = build_page(service, add_endpoints=lambda: add_endpoints(service, metrics))
    page.queue(max_size=_MOST_EVENTS, default_concurrency_limit=None)
    page.state_session_capacity = _MOST_SESSIONS
    # Only of a page that was launched does Gradio check that the files of a request were uploaded.
    page.has_launched = True
    guard(page)
    refuse_beyond(page, options.queue_size, lambda: service.waiting, metrics)
    tools = _build_tools(service, metrics, options) if options.mcp else None
    lifespan = tools.router.lifespan_context if tools else None
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(HearingOut, most=10 * options.max_upload_bytes)
    app.add_middleware(CountsEnds)
    _add_routes(app, service, metrics)
    if tools is not None:
        app.router.routes.append(Route("/mcp", AskingPassword(tools, users) if users else tools))
    return _mounted(app, page, options, users)


def _mounted(app: FastAPI, page: gr.Blocks, options: ServingOptions, users: list[tuple[str, str]] | None) -> FastAPI:
    import gradio

    from captioner.web.theme import look

    mounted: FastAPI = gradio.mount_gradio_app(
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


def _build_tools(service: Service, metrics: Metrics, options: ServingOptions) -> Starlette:
    try:
        from captioner.web.mcp import build_tools
    except ModuleNotFoundError as error:
        raise CaptionerError("`mcp` needs the package mcp", "run: pip install 'captioner[mcp]'") from error
    return build_tools(service, metrics, options)


def _add_routes(app: FastAPI, service: Service, metrics: Metrics) -> None:
    from fastapi.responses import JSONResponse, Response

    from captioner.web.metrics import CONTENT_TYPE

    @app.get("/health")
    def health() -> JSONResponse:
        status = service.models.status
        ready = status.state == "ready"
        content: dict[str, str | None] = {"status": status.state, "version": __version__}
        content |= {"weights": service.models.default or None, "digest": service.models.digest}
        return JSONResponse(content, status_code=200 if ready else 503)

    @app.get("/metrics")
    def figures() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)


@contextmanager
def _listening(options: ServingOptions) -> Iterator[socket.socket]:
    """A socket on the address that was asked for; a port that is taken is told before anything is loaded."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((options.host, options.port))
            listener.listen()  # else a second server could bind the same port before the first listens
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CaptionerError(
                f"cannot listen on {options.host}:{options.port} ({reason})", "try another `port` or `host`"
            ) from error
        yield listener


@contextmanager
def private_uploads() -> Iterator[Path]:
    """A folder for uploads that no other user can read, removed in the end.

    Gradio reads its place when it is imported, so this must come before.
    """
    folder = Path(tempfile.mkdtemp(prefix="captioner-"))  # with mode 0700
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before


def _run(app: FastAPI, listener: socket.socket, options: ServingOptions) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        ssl_keyfile=options.ssl_keyfile,
        ssl_certfile=options.ssl_certfile,
        timeout_graceful_shutdown=3,  # open pages hold a connection for as long as they are open
        server_header=False,
    )
    # uvicorn tells of each connection that it cuts off in the end
    logging.getLogger("uvicorn.error").addFilter(lambda record: "Cancel" not in record.getMessage())
    # After its orderly end uvicorn raises the signal once more; this makes SIGTERM, too, run what is to be
    # cleaned up. Both are the ordinary ways to end a server.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def _say(text: str) -> None:
    print(f"captioner: {with_flags(text)}", file=sys.stderr, flush=True)
