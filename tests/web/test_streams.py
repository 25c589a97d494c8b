"""The reply to a request waits until its page has heard the end of its stream."""

from __future__ import annotations

import asyncio
import json
from time import monotonic
from typing import TYPE_CHECKING, Any

from captioner.web.streams import EndsFirst
from tests.web.awaiting import run

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

GRACE = 0.2


class _Server:
    """Answers every request with two messages, and notes when they reach the one who asked."""

    def __init__(self) -> None:
        self.app = EndsFirst(self._answer, GRACE)
        self.body = b""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"data"})

    async def ask(self, path: str, query: bytes = b"", body: bytes = b"") -> float:
        """Ask; gives the time when the reply began."""
        begun: list[float] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body}

        async def send(message: Message) -> None:
            begun.append(monotonic())

        scope: dict[str, Any] = {"type": "http", "path": path, "query_string": query}
        await self.app(scope, receive, send)
        assert self.body == body
        assert len(begun) == 2
        return begun[0]

    async def stream(self, session: str) -> float:
        return await self.ask("/gradio_api/queue/data", f"session_hash={session}".encode())

    async def join(self, session: str, **more: Any) -> float:
        body = json.dumps({"data": [], **more, "session_hash": session}, separators=(",", ":"))
        return await self.ask("/captioner/gradio_api/queue/join", body=body.encode())


def test_the_reply_follows_the_end_of_its_stream_by_the_grace() -> None:
    async def scenario() -> None:
        server = _Server()
        for _ in range(2):
            ended = await server.stream("mine")
            assert await server.join("mine") - ended >= GRACE

    run(scenario())


def test_nothing_else_waits() -> None:
    async def scenario() -> None:
        server = _Server()
        await server.stream("mine")
        before = monotonic()
        await server.join("another", text='"session_hash":"mine"')
        await server.join("min")
        await server.ask("/gradio_api/upload", body=b'{"session_hash":"mine"}')
        assert monotonic() - before < GRACE / 2

    run(scenario())


def test_who_comes_late_does_not_wait() -> None:
    async def scenario() -> None:
        server = _Server()
        await server.stream("mine")
        await asyncio.sleep(GRACE)
        before = monotonic()
        assert await server.join("mine") - before < GRACE / 2

    run(scenario())


def test_what_has_ended_long_ago_is_forgotten() -> None:
    async def scenario() -> None:
        server = _Server()
        for number in range(100):
            await server.stream(f"session{number}")
        await asyncio.sleep(GRACE)
        await server.join("mine")
        assert not server.app._latest

    run(scenario())
