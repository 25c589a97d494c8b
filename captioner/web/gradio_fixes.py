"""Repairs of Gradio: failures become sentences, the queue and uploads have bounds, and no answer is lost.

``page.js`` does the part of these repairs that belongs to the browser.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs

import gradio as gr
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from captioner.errors import CaptionerError
from captioner.web.render import for_visitor

ImageOrFile = TypeVar("ImageOrFile", gr.Image, gr.File)

MODEL = "model"
"""The ``concurrency_id`` of the page's events that need the model."""

KEPT = 3600
"""Seconds after which an upload is removed, and all that is remembered of a visitor who did nothing more."""

_NOT_UPLOADED = "This file was not uploaded; upload it first."
_BUSY = "The server is busy; try again in a moment."
_NO_FIT = "The request does not fit this function; /?view=api shows what it takes."
_STREAMS_ENDED = b"captioner-streams-ended"
_LAST_MESSAGE = b'data: {"msg":"close_stream"'
_MOST_SESSIONS = 10_000


def guard(page: gr.Blocks) -> None:
    """Turn every failure while the page answers into a sentence, without paths and types."""
    process = page.process_api

    async def guarded(block_fn: Any, inputs: list[Any], *args: Any, **more: Any) -> Any:
        function = page.fns[block_fn] if isinstance(block_fn, int) else block_fn
        if len(inputs) < len(function.inputs):
            raise _refusal(_NO_FIT)
        try:
            return await process(block_fn, inputs, *args, **more)
        except gr.Error:  # a sentence already
            raise
        except gr.exceptions.InvalidPathError as error:
            raise _refusal(_NOT_UPLOADED) from error
        except ValidationError as error:
            raise _refusal(_NO_FIT) from error
        except Exception as error:
            raise _refusal(for_visitor(error)) from error

    page.process_api = guarded  # type: ignore[method-assign]


def _refusal(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False)


def refuse_beyond(page: gr.Blocks, most: int, waiting: Callable[[], int], count_refusal: Callable[[str], None]) -> None:
    """Refuse requests for the model, with status 503, while as many wait as may.

    Gradio lets 40 run at once and keeps the others, so requests wait in two places. Other events that Gradio
    keeps, such as the first one of every page that is opened, do not count.

    Args:
        page: a page with a queue.
        most: requests that may wait.
        waiting: how many of those that run wait for the model.
        count_refusal: counts a refusal at an endpoint.
    """
    queue = page._queue
    push = queue.push

    async def admit(body: Any, request: Any, username: str | None) -> Any:
        function = page.fns.get(body.fn_index)
        lines = queue.event_queue_per_concurrency_id.values()
        queued = sum(_asks_model(event.fn) for line in lines for event in line.queue)
        if function is None or not _asks_model(function) or queued + waiting() < most:
            return await push(body=body, request=request, username=username)
        if function.api_visibility == "public":
            count_refusal(f"/{function.api_name}")
        return False, _BUSY, "queue_full"

    queue.push = admit  # type: ignore[method-assign]


def _asks_model(function: gr.block_function.BlockFunction) -> bool:
    return function.api_visibility == "public" or function.concurrency_id == MODEL


class DrainUploads:
    """Read the rest of an upload before answering that it is too large.

    A sender that is cut off in the middle of its upload may see a broken connection and no answer. Up to
    ``most`` bytes are read and thrown away; senders of more are cut off.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_at_the_end(message: Message) -> None:
            if message.get("status") == 413:
                left = self._most
                while left > 0 and (part := await receive()).get("more_body"):
                    left -= len(part["body"])
            await send(message)

        await self._app(scope, receive, send_at_the_end if scope["type"] == "http" else send)


class CountStreamEnds:
    """State in the reply to each request of a page how many of its streams have ended.

    Gradio reports on all requests of a page over one stream (``/queue/data``), which ends when the last of
    them is answered. If the page sends another request at that moment (``/queue/join``), it may process the
    reply before the end of the stream. It then believes that the stream is still open, and waits forever for
    an answer. So ``page.js`` compares the number in the reply with the number of ends that the page has
    processed, and holds the reply back until they agree. No fixed delay would do, because a busy page may take
    any time.

    The counts of the 10,000 latest pages are kept; a page whose count is forgotten does not wait.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._ended: dict[str, int] = {}  # by session, the latest to end last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"].endswith("/queue/data"):
            await self._stream(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].endswith("/queue/join"):
            await self._join(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count(message: Message) -> None:
            if message.get("body", b"").startswith(_LAST_MESSAGE):
                session = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
                self._ended[session] = self._ended.pop(session, 0) + 1
                if len(self._ended) > _MOST_SESSIONS:
                    del self._ended[next(iter(self._ended))]
            await send(message)

        await self._app(scope, receive, count)

    async def _join(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts: list[bytes] = []

        async def listen() -> Message:
            message = await receive()
            parts.append(message.get("body", b""))
            return message

        async def add_header(message: Message) -> None:
            if message["type"] == "http.response.start":
                ended = self._ended.get(_session(b"".join(parts)), 0)
                message["headers"] = [*message.get("headers", []), (_STREAMS_ENDED, b"%d" % ended)]
            await send(message)

        await self._app(scope, listen, add_header)


def _session(body: bytes) -> str:
    """The session that a request names; empty if it names none."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    session = asked.get("session_hash") if isinstance(asked, dict) else None
    return session if isinstance(session, str) else ""


def no_addresses(component: ImageOrFile) -> ImageOrFile:
    """Keep a component from fetching files from addresses, and return it: this server sends no requests.

    Args:
        component: a component of Gradio's that takes files. Gradio writes a file beside the code of each
            class that derives from one, so the method is replaced on the object.
    """
    keep = component.async_move_resource_to_block_cache

    async def keep_files(file_path: str | Path | None) -> str | None:
        if str(file_path).lower().startswith(("http:", "https:")):
            raise _refusal("Send the image itself, not its address.")
        path: str | None = await keep(file_path)
        return path

    vars(component)["async_move_resource_to_block_cache"] = keep_files
    return component


def uploaded_file(upload: Mapping[str, Any] | None) -> Path:
    """Find a file that Gradio received.

    Gradio checks the path only in records that say that they are files, so a forged one could name any file of
    the server.

    Args:
        upload: Gradio's record, with ``path``; None if there is none.

    Raises:
        CaptionerError: there is no file, or it was not uploaded.
    """
    if not upload or not upload.get("path"):
        raise CaptionerError("choose an image first")
    path = Path(str(upload["path"]))
    try:
        inside = path.resolve().is_relative_to(Path(gr.utils.get_upload_folder()).resolve())
    except (OSError, ValueError, RuntimeError):  # a name with a zero byte, or a loop of links
        inside = False
    if not inside:
        raise CaptionerError("this file was not uploaded", "upload it first")
    return path
