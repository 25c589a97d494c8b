"""A page hears that its stream of events has ended before it hears that its next request was taken."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class EndsFirst:
    """Holds the reply to a request back until its page must have heard the end of its stream.

    Gradio tells a page about all its requests on one stream (``/queue/data``), which ends when the last of
    them is answered. A page that asks for more at just that moment (``/queue/join``) may get the reply to
    that before the end of the stream, takes the stream for open, and waits for ever for an answer that nobody
    sends. So the reply follows the latest word on that stream after ``grace`` seconds at the earliest.

    Args:
        app: what answers.
        grace: by how much, in seconds, a message may overtake an earlier one on another connection.
    """

    def __init__(self, app: ASGIApp, grace: float = 0.15) -> None:
        self._app, self._grace = app, grace
        self._latest: dict[bytes, float] = {}  # when each session's stream last said something

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"].endswith("/queue/data"):
            await self._stream(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].endswith("/queue/join"):
            await self._join(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = parse_qs(scope["query_string"]).get(b"session_hash", [b""])[0]

        async def remember(message: Message) -> None:
            self._latest[session] = monotonic()
            await send(message)

        await self._app(scope, receive, remember)

    async def _join(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts: list[bytes] = []

        async def listen() -> Message:
            message = await receive()
            parts.append(message.get("body", b""))
            return message

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep(self._remaining(b"".join(parts)))
            await send(message)

        await self._app(scope, listen, hold)

    def _remaining(self, body: bytes) -> float:
        """Seconds for which the reply to this body is to wait."""
        now = monotonic()
        self._latest = {session: when for session, when in self._latest.items() if now < when + self._grace}
        spoken = [when for session, when in self._latest.items() if b'"session_hash":"%b"' % session in body]
        return max(spoken, default=now - self._grace) + self._grace - now
