"""The web server: its socket, its folder for uploads, its end. Gradio is imported only after a port is found."""

import asyncio.constants
import ctypes
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.options import with_flags
from captioner.web.options import ServingOptions, check_certificate, read_users
from captioner.web.service import Service

_READ = 60  # seconds in which a piece of an answer, 48 kB, must be read


def serve(options: ServingOptions) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Raises:
        CaptionerError: something that the options name cannot be used, or the address is taken.
    """
    _spare_memory()
    users = None if options.auth_file is None else read_users(Path(options.auth_file))
    if options.ssl_certfile is not None and options.ssl_keyfile is not None:
        check_certificate(options.ssl_certfile, options.ssl_keyfile)
    if not options.local and users is None:
        _say(f"warning: everybody who reaches {options.host} can use the page; `auth_file` asks for a password")
    with listen(options) as listener, private_uploads():
        try:
            import uvicorn

            from captioner.web.page import build_app
        except ModuleNotFoundError as error:
            raise CaptionerError(f"the page needs {error.name}", "run: pip install 'captioner[app]'") from error

        service = Service(
            options.weights,
            device=options.device,
            runtime=options.runtime,
            max_batch_size=options.max_batch_size,
            queue_size=options.queue_size,
            timeout=options.timeout,
        )
        config = uvicorn.Config(
            build_app(service, options, users),
            log_level="warning",
            ssl_keyfile=options.ssl_keyfile,
            ssl_certfile=options.ssl_certfile,
            http=_impatient(),
            timeout_graceful_shutdown=3,  # open pages hold a connection for as long as they are open
            server_header=False,
        )
        scheme = "http" if options.ssl_certfile is None else "https"
        address = f"{scheme}://{options.name}:{listener.getsockname()[1]}{options.root_path}"
        tools = f", and MCP tools at {address}/mcp" if options.mcp else ""
        _say(f"the page is at {address}{tools}; Ctrl-C ends")
        threading.Thread(target=service.keep_small, daemon=True).start()
        service.models.start()  # not earlier: loading the model would hold up the page
        # uvicorn reports each connection that it cuts off at the end.
        logging.getLogger("uvicorn.error").addFilter(lambda record: "Cancel" not in record.getMessage())
        # After its orderly end uvicorn raises the signal once more; with this handler SIGTERM, too, cleans up.
        # Both signals are the ordinary ways to end a server.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _spare_memory() -> None:
    """Have glibc give large pieces back at once, and keep few pools: that of each thread would stay as it grew."""
    with suppress(OSError, AttributeError, TypeError):  # another C library
        for option, value in ((-3, 2**20), (-8, 2)):  # M_MMAP_THRESHOLD and M_ARENA_MAX
            ctypes.CDLL(None).mallopt(option, value)


def _impatient() -> type:
    """Make uvicorn's protocol close connections that stop, which it keeps (Kludex/uvicorn#157)."""
    from starlette.responses import JSONResponse
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from captioner.web.gate import HEADERS, STALLED

    class Impatient(H11Protocol):
        def connection_made(self, transport: object) -> None:
            super().connection_made(transport)  # type: ignore[arg-type]
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def _watch(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.loop.call_later(STALLED, self._give_up, self.cycle)

        def _give_up(self, latest: object) -> None:
            if self.cycle is latest:  # no other request has begun
                self.transport.close()

        def pause_writing(self) -> None:  # the answer is not read
            super().pause_writing()
            self._unread = self.loop.call_later(_READ, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._unread.cancel()

        def send_400_response(self, msg: str) -> None:  # also of headers and bodies that h11 cannot read
            if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
                answer = JSONResponse({"error": msg}, 400, {**HEADERS, "connection": "close"})
                fields = b"".join(b"%s: %s\r\n" % field for field in answer.raw_headers)
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%s\r\n%s" % (fields, bytes(answer.body)))
            self.transport.close()

    asyncio.constants.SSL_HANDSHAKE_TIMEOUT = STALLED  # uvicorn has no option for it
    return Impatient


def listen(options: ServingOptions) -> socket.socket:
    """Open a socket on the given address; a port that is taken is reported before anything is loaded."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else asyncio leaves Nagle's delay
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
        listener.listen()  # otherwise a second server could bind the same port before the first listens
    except (OSError, UnicodeError) as error:
        listener.close()
        where, reason = f"{options.host}:{options.port}", getattr(error, "strerror", None) or error
        raise CaptionerError(f"cannot listen on {where} ({reason})", "try another `port` or `host`") from error
    return listener


@contextmanager
def private_uploads() -> Iterator[Path]:
    """Make a folder for uploads that no other user can read, and remove it at the end.

    Enter this before Gradio is imported, which reads its place from the environment.
    """
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="captioner-", ignore_cleanup_errors=True) as folder:  # with mode 0700
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        try:
            yield Path(folder)
        finally:
            del os.environ["GRADIO_TEMP_DIR"]
            if before is not None:
                os.environ["GRADIO_TEMP_DIR"] = before


def _say(text: str) -> None:
    print(f"captioner: {with_flags(text)}", file=sys.stderr, flush=True)
