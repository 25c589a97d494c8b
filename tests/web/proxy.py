"""A proxy that offers a server under a path, as nginx does for ``location /captioner/``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit


@contextmanager
def behind_proxy(address: str, prefix: str) -> Iterator[str]:
    """Offer what is at an address under a prefix, which is taken off; gives the new address."""
    upstream = urlsplit(address).netloc

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            length = int(self.headers.get("content-length") or 0)
            headers = dict(self.headers.items()) | {"Connection": "close"}
            connection = HTTPConnection(upstream, timeout=120)
            body = self.rfile.read(length)
            connection.request(self.command, self.path.removeprefix(prefix), body, headers)
            answer = connection.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            with suppress(ConnectionError):  # a browser that has left is told no more
                while part := answer.read1(65536):  # as it comes: answers are streams of events
                    self.wfile.write(part)
            connection.close()

        do_GET = do_POST = do_HEAD = _pass_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        proxy.daemon_threads = True
        Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}{prefix}/"
        proxy.shutdown()
