"""What every request passes first: who may ask, how much may come, whether it is JSON; and headers of all answers."""

import asyncio
import base64
import re
import secrets
from collections.abc import Callable, Sequence

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as HTTPException  # page.py takes it from here
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from captioner.web.options import ServingOptions
from captioner.web.uploads import Uploads

STALLED = 10
"""Seconds after which a request that does not go on is given up."""

_SLOWEST = 1000  # bytes a second of a body
_NAMES = ("127.0.0.1", "[::1]", "localhost")
_SLACK = 2**20  # bytes of a request beside its images
# How long requests may be, in times the largest image; all others only have the slack.
_TIMES = {"/upload": 10, "/api/caption": 1, "/api/caption_batch": 10, "/api/score": 1, "/mcp": 2}
_IN_MEMORY, _ON_DISK = 3, 25  # times the largest image: what all requests together may hold
_FILES = "/gradio_api/file"
_FOR_PROGRAMS = ("/api/", "/mcp")  # the page asks for a password itself
_PLAIN = {"Not Found": "There is nothing here.", "Method Not Allowed": "This address does not take such requests."}
HEADERS = {
    "content-security-policy": "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


class Gate:
    """Refuse what comes from web pages elsewhere or without password, is too long, stops or is no JSON."""

    def __init__(
        self, app: ASGIApp, options: ServingOptions, users: Sequence[tuple[str, str]] | None, uploads: Uploads
    ) -> None:
        self._app, self._uploads, self._largest = app, uploads, options.max_upload_bytes
        self._root = options.root_path.rstrip("/")
        # A page elsewhere could reach what is for this machine alone through a visitor's browser. So requests must name
        # this machine, and come from its own pages. A proxy may pass on any name.
        here = "|".join(map(re.escape, (*_NAMES, options.name)))
        self._here = re.compile(f"({here})(:\\d*)?", re.IGNORECASE) if options.local and not options.root_path else None
        self._users = [base64.b64encode(f"{name}:{password}".encode()) for name, password in users or ()]
        self._held = {True: 0, False: 0}  # bytes of bodies under way, by whether they are in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False
        if scope["path"].startswith(f"{self._root}/"):  # a proxy may leave it there
            scope = {**scope, "path": scope["path"].removeprefix(self._root)}
        visitor, path, headers = (scope["client"] or ("", 0))[0], scope["path"], Headers(scope=scope)
        hides = "/gradio_api/" in path and _FILES not in path
        json = headers.get("content-type", "").partition(";")[0].strip().lower().endswith("json")

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                answer = MutableHeaders(raw=message.setdefault("headers", []))
                if message["status"] >= 400 and "json" not in answer.get("content-type", ""):
                    body.refusal = body.refusal or HTTPException(message["status"])
                if body.refusal is not None:
                    return  # this is what becomes of the request without its end, or has no sentence
                begun = True
                for name, value in HEADERS.items():
                    answer.setdefault(name, value)
                del answer["access-control-allow-origin"]  # Gradio lets the pages of any site read answers
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
        body = _Body(receive, times * self._largest + _SLACK, lambda count: self._hold(json, count))
        try:
            self._check(path, headers)
            body.check_length(headers)
            if json:
                await body.read_json(self._uploads.find)
            if _FILES in path:
                scope = {**scope, "path": self._uploads.find(path.encode()).decode()}
            await self._app(scope, body.receive, send_with_headers)
        except HTTPException as error:
            body.refusal = error
        except Exception:
            if begun and "/call/" in path:  # Gradio has told of an event that it does not know
                await send({"type": "http.response.body"})
            elif body.refusal is None:
                raise
        finally:
            self._held[json] -= body.length
            if path.endswith("/upload"):
                # A file may vanish meanwhile.
                await asyncio.gather(asyncio.to_thread(self._uploads.trim), return_exceptions=True)
        if body.refusal is not None and not begun:
            refusal, body.refusal = body.refusal, None
            response = JSONResponse({"error": sentence(refusal.detail)}, refusal.status_code, refusal.headers)
            await response(scope, receive, send_with_headers)

    def _hold(self, json: bool, count: int) -> None:
        self._held[json] += count
        if self._held[json] > (_IN_MEMORY if json else _ON_DISK) * self._largest + _SLACK:
            raise HTTPException(503, "Too much is being sent; try again in a moment.", {"retry-after": "1"})

    def _check(self, path: str, headers: Headers) -> None:
        if any(part in path for part in ("/file=http", "/file/http", "/proxy=")):  # gradio-app/gradio#13593
            raise HTTPException(403, "This server fetches nothing from addresses.")
        if self._users and path.startswith(_FOR_PROGRAMS):
            _check_password(headers.get("authorization", ""), self._users)
        if self._here is None:
            return
        host = headers.get("host", "").lower()
        if not self._here.fullmatch(host):
            raise HTTPException(421, "This server answers to the names of its own machine only.")
        if any(origin.lower().partition("//")[2] != host for origin in headers.getlist("origin")):
            raise HTTPException(403, "Pages of other servers may not ask this one.")


class _Body:
    """The body of a request, while it comes; ``hold`` may refuse each part by its length, ``refusal`` says why."""

    def __init__(self, receive: Receive, most: int, hold: Callable[[int], None]) -> None:
        self._receive, self._most, self._hold = receive, most, hold
        self.length, self._complete, self._waited = 0, False, 0.0
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
        clock = asyncio.get_running_loop().time
        start, left = clock(), STALLED + self.length / _SLOWEST - self._waited
        try:
            message = await asyncio.wait_for(self._receive(), min(left, STALLED))
        except asyncio.TimeoutError:
            self.refusal = HTTPException(408, "The request did not go on.", {"connection": "close"})
            raise self.refusal from None
        self._waited += clock() - start
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


def sentence(said: object) -> str:
    """Make a sentence of why a request is refused."""
    text = str(said["error"] if isinstance(said, dict) else said)  # Gradio's refusal of strangers is a dictionary
    return _PLAIN.get(text, text if text.endswith(".") else f"{text}.")


def _check_password(header: str, known: Sequence[bytes]) -> None:
    kind, _, code = header.partition(" ")
    matches = [secrets.compare_digest(code.strip().encode(), each) for each in known]  # all, in the same time
    if kind.lower() != "basic" or not any(matches):
        raise HTTPException(401, "Not authenticated.", {"www-authenticate": 'Basic realm="captioner"'})
