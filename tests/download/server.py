"""A file server on the loopback that misbehaves as it is told."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Manner:
    """How one request is answered.

    Attributes:
        status: an error to answer with instead of the file.
        ranges: whether a Range header is honoured.
        send: how many bytes of the body are sent before the connection is dropped; None for all.
        stall: whether the connection is kept open in silence after those bytes instead.
        length: the Content-Length to claim; None for the true one, 0 for none at all.
        shift: how far the range that is sent lies from the one asked for.
    """

    status: int | None = None
    ranges: bool = True
    send: int | None = None
    stall: bool = False
    length: int | None = None
    shift: int = 0


@dataclass
class FileServer:
    """Files by path, a validator, the manners of the requests to come, and the requests seen."""

    files: dict[str, bytes] = field(default_factory=dict)
    validator: tuple[str, str] = ("ETag", '"one"')
    manners: list[Manner] = field(default_factory=list)
    usual: Manner = field(default_factory=Manner)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def header(self, name: str) -> list[str | None]:
        """What each request so far gave for a header."""
        return [headers.get(name) for _, headers in self.requests]


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append((self.path, dict(self.headers.items())))
            manner = server.manners.pop(0) if server.manners else server.usual
            body = server.files.get(self.path.lstrip("/"))
            if manner.status is not None or body is None:
                self.send_error(manner.status or 404)
                return
            start = self._start(manner)
            if start >= len(body) > 0:
                self.send_error(416)
                return
            self._answer(manner, body, start)

        def _start(self, manner: Manner) -> int:
            found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            current = self.headers.get("If-Range", server.validator[1]) == server.validator[1]
            return int(found[1]) if found and manner.ranges and current else 0

        def _answer(self, manner: Manner, body: bytes, start: int) -> None:
            self.send_response(206 if start else 200)
            if start:
                first = start + manner.shift
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            if manner.length != 0:
                self.send_header("Content-Length", str(manner.length or len(body) - start))
            self.send_header(*server.validator)
            self.end_headers()
            end = len(body) if manner.send is None else start + manner.send
            with suppress(ConnectionError):  # The client may have turned away already.
                self.wfile.write(body[start:end])
                self.wfile.flush()
            if manner.stall:
                server.released.wait()

        def log_message(self, *args: object) -> None:
            """Keeps quiet."""

    return Handler


@contextmanager
def serving() -> Iterator[FileServer]:
    server = FileServer()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(server)) as listener:
        listener.daemon_threads = True
        listener.block_on_close = False
        server.port = listener.server_address[1]
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            listener.shutdown()
            thread.join()
