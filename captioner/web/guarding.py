"""Requests that fit nothing, are too large or too many get a clear answer, without Gradio's insides."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.exceptions import InvalidPathError
from pydantic import ValidationError

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
