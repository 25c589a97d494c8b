"""A page that asks for more is told how many of its streams of events have ended, to wait for each end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
