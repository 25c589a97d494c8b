"""Requests that fit nothing, are too large or too many get a clear answer, without Gradio's insides."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs

import gradio as gr
from gradio.exceptions import InvalidPathError
from gradio.utils import get_upload_folder
from pydantic import ValidationError

from captioner.errors import CaptionerError
from captioner.web.messages import for_visitor

if TYPE_CHECKING:
    from gradio.block_function import BlockFunction
    from gradio.queueing import Queue
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from captioner.web.metrics import Metrics


MODEL = "model"
"""What events are called that need the model, for Gradio's ``concurrency_id``."""

_NOT_UPLOADED = "This file was not uploaded; upload it first."
_BUSY = "The server is busy; try again in a moment."
_NO_FIT = "The request does not fit this function; /?view=api tells what it takes."


def guard(page: gr.Blocks) -> None:
    """Turn whatever fails while the page answers into a sentence, without paths and types."""
    process = page.process_api

    async def guarded(block_fn: Any, inputs: list[Any], *args: Any, **more: Any) -> Any:
        function = page.fns[block_fn] if isinstance(block_fn, int) else block_fn
        if len(inputs) < len(function.inputs):
            raise _refusal(_NO_FIT)
        try:
            return await process(block_fn, inputs, *args, **more)
        except gr.Error:  # a sentence already
            raise
        except InvalidPathError as error:
            raise _refusal(_NOT_UPLOADED) from error
        except ValidationError as error:
            raise _refusal(_NO_FIT) from error
        except Exception as error:
            raise _refusal(for_visitor(error)) from error

    page.process_api = guarded  # type: ignore[method-assign]


def _refusal(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False)


def refuse_beyond(page: gr.Blocks, most: int, waiting: Callable[[], int], metrics: Metrics) -> None:
    """Refuse requests for the model, with status 503, while as many wait as may.

    Gradio lets 40 run at once and keeps the others, so what waits is in two places. What else Gradio keeps,
    such as the first question of every page that is opened, takes nobody's place.

    Args:
        page: a page with a queue.
        most: requests that may wait.
        waiting: how many of those that run wait for the model.
        metrics: where refusals are counted.
    """
    queue = page._queue
    push = queue.push

    async def admit(body: Any, request: Any, username: str | None) -> Any:
        function = page.fns.get(body.fn_index)
        if function is None or not _asks_model(function) or _queued(queue) + waiting() < most:
            return await push(body=body, request=request, username=username)
        if function.api_visibility == "public":
            metrics.refused(f"/{function.api_name}")
        return False, _BUSY, "queue_full"

    queue.push = admit  # type: ignore[method-assign]


def _queued(queue: Queue) -> int:
    """How many requests for the model Gradio keeps until they may run."""
    kept = queue.event_queue_per_concurrency_id.values()
    return sum(_asks_model(event.fn) for line in kept for event in line.queue)


def _asks_model(function: BlockFunction) -> bool:
    return function.api_visibility == "public" or function.concurrency_id == MODEL


class HearingOut:
    """Reads what is left of an upload before it is answered that it is too large.

    A sender that is cut off in the middle of its upload may see a broken connection and no answer.

    Args:
        app: what answers.
        most: bytes that are read and thrown away; who sends more is cut off.
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


_ENDED = b"captioner-streams-ended"
_LAST_WORD = b'data: {"msg":"close_stream"'
_MOST_SESSIONS = 10_000


class CountsEnds:
    """Names, in the reply to each request of a page, how many of its streams have ended.

    Gradio tells a page about all its requests on one stream (``/queue/data``), which ends when the last of
    them is answered. A page that asks for more at just that moment (``/queue/join``) may take in the reply to
    that before the end of the stream, for which it needs more steps. Then it takes the stream for open, and
    waits for ever for an answer that nobody sends. So ``page.js`` compares the number with that of the ends
    which Gradio has taken in, and holds the reply back until they agree. No fixed delay would do: a busy page
    takes in both when it finds the time.

    The counts of the 10,000 latest pages are kept; a page whose count is forgotten does not wait.

    Args:
        app: what answers.
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
            if message.get("body", b"").startswith(_LAST_WORD):
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

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                ended = self._ended.get(_session(b"".join(parts)), 0)
                message["headers"] = [*message.get("headers", []), (_ENDED, b"%d" % ended)]
            await send(message)

        await self._app(scope, listen, tell)


def _session(body: bytes) -> str:
    """The session that a request names, if it names one."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    session = asked.get("session_hash") if isinstance(asked, dict) else None
    return session if isinstance(session, str) else ""


KEPT = 3600
"""Seconds after which an upload is removed, and all that is remembered of a visitor who did nothing more."""

ImageOrFile = TypeVar("ImageOrFile", gr.Image, gr.File)

_SCHEMES = ("http:", "https:")


def no_addresses(component: ImageOrFile) -> ImageOrFile:
    """Keep a component from fetching a file from an address: this server asks nobody else.

    Args:
        component: a component of Gradio's that takes files. Gradio writes a file beside the code of each
            class that derives from one, so the method is replaced on the object.

    Returns:
        The same component.
    """
    keep = component.async_move_resource_to_block_cache

    async def keep_files(file_path: str | Path | None) -> str | None:
        if str(file_path).lower().startswith(_SCHEMES):
            raise gr.Error("Send the image itself, not its address.", print_exception=False)
        path: str | None = await keep(file_path)
        return path

    vars(component)["async_move_resource_to_block_cache"] = keep_files
    return component


def uploaded_file(upload: Mapping[str, Any] | None) -> Path:
    """Where a file lies that Gradio received.

    Gradio checks this only for records that say that they are files, so a forged one could name any file
    of the server.

    Args:
        upload: Gradio's record, with ``path``; None if there is none.

    Raises:
        CaptionerError: there is no file, or it was not uploaded.
    """
    if not upload or not upload.get("path"):
        raise CaptionerError("choose an image first")
    path = Path(str(upload["path"]))
    try:
        inside = path.resolve().is_relative_to(Path(get_upload_folder()).resolve())
    except (OSError, ValueError, RuntimeError):  # a name with a zero byte, or a loop of links
        inside = False
    if not inside:
        raise CaptionerError("this file was not uploaded", "upload it first")
    return path
