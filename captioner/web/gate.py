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
from captioner.web.uploads import Uploads

STALLED = 10
"""Seconds after which a request that does not go on is given up."""

_HERE = [f"[{host}]" if ":" in host else host for host in LOCAL_HOSTS]
_SLACK = 2**20  # bytes of a request beside its images
# How long requests may be, in times the largest image; all others only have the slack.
_TIMES = {"/upload": 10, "/api/caption": 1, "/api/caption_batch": 10, "/api/score": 1, "/mcp": 2}
_IN_MEMORY, _ON_DISK = 3, 25  # times the largest image: what all requests together may hold
_FILES = "/gradio_api/file"
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
        uploads: what is kept of visitors' files.
    """

    def __init__(
        self, app: ASGIApp, *, largest: int, local: bool, users: Sequence[tuple[str, str]] | None, uploads: Uploads
    ) -> None:
        self._app, self._largest, self._local, self._uploads = app, largest, local, uploads
        self._users = None if users is None else [f"{name}:{password}".encode() for name, password in users]
        self._held = {True: 0, False: 0}  # bytes of bodies under way, by whether they are in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False
        path, headers = scope["path"], Headers(scope=scope)
        visitor, is_file = (scope["client"] or ("", 0))[0], _FILES in path
        hides = "/gradio_api/" in path and not is_file
        json = headers.get("content-type", "").partition(";")[0].strip().lower().endswith("json")

        def hold(count: int) -> None:
            self._held[json] += count
            if self._held[json] > (_IN_MEMORY if json else _ON_DISK) * self._largest + _SLACK:
                raise HTTPException(503, "Too much is being sent; try again in a moment.", {"retry-after": "1"})

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                if body.refusal is not None and not begun:
                    return  # what becomes of the request without its end
                begun = True
                answer = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in _HEADERS.items():
                    answer.setdefault(name, value)
                if hides:
                    del answer["content-length"]  # paths will be shorter
            elif not begun:
                return
            elif hides:
                if path.endswith("/upload"):
                    self._uploads.note(visitor, message.get("body", b""))
                message["body"] = self._uploads.hide(message.get("body", b""))
            await send(message)

        times = next((times for end, times in _TIMES.items() if path.endswith(end)), 0)
        body = _Body(receive, times * self._largest + _SLACK, hold)
        try:
            self._check(path, headers)
            body.check_length(headers)
            if json:
                await body.read_json(self._uploads.find)
            if is_file:
                scope = {**scope, "path": self._uploads.find(path.encode()).decode()}
            await self._app(scope, body.receive, send_with_headers)
        except HTTPException as error:
            body.refusal = error
        except Exception:
            if body.refusal is None:
                raise
        finally:
            self._held[json] -= body.length
            if path.endswith("/upload"):
                # A file may vanish meanwhile.
                await asyncio.gather(asyncio.to_thread(self._uploads.trim), return_exceptions=True)
        if body.refusal is not None and not begun:
            refusal, body.refusal = body.refusal, None
            response = JSONResponse({"error": refusal.detail}, refusal.status_code, refusal.headers)
            await response(scope, receive, send_with_headers)

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

    Args:
        receive: gives its parts.
        most: bytes.
        hold: called with the length of each part; may refuse it.

    Attributes:
        length: bytes so far.
        refusal: why it was not read to its end.
    """

    def __init__(self, receive: Receive, most: int, hold: Callable[[int], None]) -> None:
        self._receive, self._most, self._hold = receive, most, hold
        self.length, self._complete = 0, False
        self._read: list[Message] = []
        self.refusal: HTTPException | None = None

    def check_length(self, headers: Headers) -> None:
        """Refuse a body that says that it is too long."""
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._most:
            raise self._too_long()

    async def read_json(self, change: Callable[[bytes], bytes]) -> None:
        """Read the body and refuse what is no JSON: that of Python alone lets NaN and lone surrogates pass."""
        parts = []
        while not self._complete:
            parts.append((await self.receive()).get("body", b""))
        text = b"".join(parts)
        self._read = [{"type": "http.request", "body": change(text)}]
        try:
            orjson.loads(text or b"{}")
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
        part = len(message.get("body", b""))
        self.length += part
        self._complete = not message.get("more_body", False)
        try:
            self._hold(part)
            if self.length > self._most:
                raise self._too_long()
        except HTTPException as error:
            self.refusal = error
            raise
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
