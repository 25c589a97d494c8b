"""Requests that fit nothing or are too large get a clear answer, without Gradio's insides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.exceptions import InvalidPathError
from pydantic import ValidationError

from captioner.web.messages import for_visitor

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NOT_UPLOADED = "This file was not uploaded; upload it first."
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
