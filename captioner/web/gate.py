"""What every request passes first: who may ask, how much may come, whether it is JSON; and headers of all answers."""

import asyncio
import base64
import secrets
from collections.abc import Callable, Sequence

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as HTTPException  # page.py takes it from here
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from captioner.web.options import LOCAL_HOSTS

STALLED = 10
"""Seconds after which a request that does not go on is given up."""

_HERE = [f"[{host}]" if ":" in host else host for host in LOCAL_HOSTS]
_SLACK = 2**20  # bytes of a request beside its images
_TIMES = {"/upload": 25, "/api/caption_batch": 10, "/mcp": 2}  # the largest image; how long requests may be
_FOR_PROGRAMS = ("/api/", "/mcp")  # the page asks for a password itself
_HEADERS = {
    "content-security-policy": "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


class Gate:
    """Refuse what comes from web pages elsewhere, is too long, stops or is no JSON.

    Args:
        app: answers all other requests.
        largest: bytes of the largest image.
        local: whether only this machine is served. A page elsewhere could reach it through a visitor's browser, so
            that requests must name this machine, and come from its own pages.
        users: names and passwords of the programs that may come in (HTTP Basic); None for all.
        uploaded: called after each upload.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        largest: int,
        local: bool,
        users: Sequence[tuple[str, str]] | None,
        uploaded: Callable[[], None],
    ) -> None:
        self._app, self._largest, self._local, self._uploaded = app, largest, local, uploaded
        self._users = None if users is None else [f"{name}:{password}".encode() for name, password in users]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                if body.refusal is not None and not begun:
                    return  # what becomes of the request without its end
                begun = True
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            elif not begun:
                return
            await send(message)

        path, headers = scope["path"], Headers(scope=scope)
        times = next((times for end, times in _TIMES.items() if path.endswith(end)), 1)
        body = _Body(receive, times * self._largest + _SLACK)
        try:
            self._check(path, headers)
            body.check_length(headers)
            if headers.get("content-type", "").partition(";")[0].strip().lower().endswith("json"):
                await body.check_json()
            await self._app(scope, body.receive, send_with_headers)
        except HTTPException as error:
            body.refusal = error
        except Exception:
            if body.refusal is None:
                raise
        finally:
            if path.endswith("/upload"):
                # A file may vanish meanwhile.
                await asyncio.gather(asyncio.to_thread(self._uploaded), return_exceptions=True)
        if body.refusal is not None and not begun:
            refusal, body.refusal = body.refusal, None
            answer = JSONResponse({"error": refusal.detail}, refusal.status_code, refusal.headers)
            await answer(scope, receive, send_with_headers)

    def _check(self, path: str, headers: Headers) -> None:
        if any(part in path for part in ("/file=http", "/file/http", "/proxy=")):  # gradio-app/gradio#13593
            raise HTTPException(403, "This server fetches nothing from addresses.")
        if self._users is not None and path.startswith(_FOR_PROGRAMS):
            _check_password(headers.get("authorization", ""), self._users)
        if not self._local:
            return
        host, origin = headers.get("host", ""), headers.get("origin")
        if host.removesuffix(f":{host.rpartition(':')[2]}") not in _HERE and host not in _HERE:
            raise HTTPException(421, "This server answers to the names of its own machine only.")
        if origin is not None and origin.partition("//")[2] != host:
            raise HTTPException(403, "Pages of other servers may not ask this one.")


class _Body:
    """The body of a request, while it comes.

    Attributes:
        refusal: why it was not read to its end.
    """

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self._length, self._complete = 0, False
        self._read: list[Message] = []
        self.refusal: HTTPException | None = None

    def check_length(self, headers: Headers) -> None:
        """Refuse a body that says that it is too long."""
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._most:
            raise self._too_long()

    async def check_json(self) -> None:
        """Read the body and refuse what is no JSON: that of Python alone lets NaN and lone surrogates pass."""
        while not self._complete:
            message = await self.receive()
            self._read.append(message)
        try:
            orjson.loads(b"".join(message.get("body", b"") for message in self._read) or b"{}")
        except orjson.JSONDecodeError as error:
            raise HTTPException(400, f"This is not JSON in UTF-8: {error}.") from error

    async def receive(self) -> Message:
        """Give the next part."""
        if self._complete:
            return self._read.pop(0) if self._read else await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), STALLED)
        except asyncio.TimeoutError:
            self.refusal = HTTPException(408, "The request did not go on.", {"connection": "close"})
            raise self.refusal from None
        self._length += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._length > self._most:
            self.refusal = self._too_long()
            raise self.refusal
        return message

    def _too_long(self) -> HTTPException:
        return HTTPException(413, f"The request is larger than {self._most / 1e6:.0f} MB.")


def _check_password(header: str, known: Sequence[bytes]) -> None:
    kind, _, code = header.partition(" ")
    try:
        given = base64.b64decode(code, validate=True)
    except ValueError:
        given = b""
    matches = [secrets.compare_digest(given, each) for each in known]  # all, in the same time
    if kind.lower() != "basic" or not any(matches):
        raise HTTPException(401, "Not authenticated.", {"www-authenticate": 'Basic realm="captioner"'})
