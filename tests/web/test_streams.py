"""The reply to a request of a page tells how many of its streams have ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from captioner.web import gradio_fixes
from captioner.web.gradio_fixes import CountStreamEnds
from tests.web.awaiting import run

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

END = b'data: {"msg":"close_stream","event_id":null}\n\n'
COMPLETED = rb'data: {"msg":"process_completed","output":{"data":["\"msg\":\"close_stream\""]}}' + b"\n\n"


class _Server:
    """Answers every request with the same messages."""

    def __init__(self, *says: bytes) -> None:
        self.app = CountStreamEnds(self._answer)
        self.says = says
        self.body = b""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.body = b""
        more = True
        while more:
            message = await receive()
            self.body += message["body"]
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"server", b"test")]})
        for part in self.says:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def ask(self, path: str, query: bytes = b"", body: bytes = b"") -> list[tuple[bytes, bytes]]:
        """Ask; gives the headers of the reply."""
        half = len(body) // 2
        parts = [(body[:half], True), (body[half:], False)]
        answers: list[Message] = []

        async def receive() -> Message:
            part, more = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": more}

        async def send(message: Message) -> None:
            answers.append(message)

        scope: dict[str, Any] = {"type": "http", "path": path, "query_string": query}
        run(self.app(scope, receive, send))
        assert self.body == body
        assert tuple(message["body"] for message in answers[1:-1]) == self.says
        headers: list[tuple[bytes, bytes]] = answers[0]["headers"]
        assert headers[0] == (b"server", b"test")
        return headers[1:]

    def stream(self, session: str) -> None:
        assert self.ask("/gradio_api/queue/data", f"session_hash={session}".encode()) == []

    def join(self, session: str) -> int:
        body = json.dumps({"data": ["session_hash"], "session_hash": session}).encode()
        ((name, value),) = self.ask("/captioner/gradio_api/queue/join", body=body)
        assert name == b"captioner-streams-ended"
        return int(value)


def test_the_ends_of_each_page_are_counted() -> None:
    server = _Server(COMPLETED, END)
    assert server.join("mine") == 0
    for number in range(1, 4):
        server.stream("mine")
        assert server.join("mine") == number
        assert server.join("another") == 0
    assert server.ask("/gradio_api/upload", body=b'{"session_hash":"mine"}') == []


def test_a_stream_that_broke_off_has_no_end_that_a_page_could_hear_of() -> None:
    server = _Server(COMPLETED)
    server.stream("mine")
    assert server.join("mine") == 0


def test_the_pages_that_were_heard_of_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradio_fixes, "_MOST_SESSIONS", 2)
    server = _Server(END)
    for session in ("first", "second", "first", "third"):
        server.stream(session)
    assert [server.join(session) for session in ("first", "second", "third")] == [2, 0, 1]


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b"7", b'{"session_hash":["mine"]}', b"[" * 100_000, b"\xff"])
def test_who_names_no_session_is_told_of_no_end(body: bytes) -> None:
    server = _Server(END)
    server.stream("mine")
    assert server.ask("/gradio_api/queue/join", body=body) == [(b"captioner-streams-ended", b"0")]
