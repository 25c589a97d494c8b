"""Who may come in: a file with names and passwords."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import ssl
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.errors import OptionError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


def read_users(file: Path) -> list[tuple[str, str]]:
    """Read an ``--auth-file``: a line ``USER:PASSWORD`` for each visitor, and comments after ``#``.

    Raises:
        OptionError: the file cannot be read, or a line is no such pair.
    """
    try:
        text = file.read_text(encoding="utf-8")
        mode = file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})") from error
    if os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH):
        print(f"captioner: warning: others can read {file}; run: chmod 600 {file}", file=sys.stderr)
    users = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.strip().partition(":")
        if not (name and colon and password):
            raise OptionError(f"{file}, line {number}: must be USER:PASSWORD")
        users.append((name, password))
    if not users:
        raise OptionError(f"{file}: names nobody", "give a line USER:PASSWORD")
    return users


class AskingPassword:
    """Lets those in who send a name and its password with each request (HTTP Basic).

    Args:
        app: what answers them.
        users: names and passwords.
    """

    def __init__(self, app: ASGIApp, users: Sequence[tuple[str, str]]) -> None:
        self._app = app
        self._known = [f"{name}:{password}".encode() for name, password in users]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        from starlette.responses import JSONResponse

        if self._is_known(dict(scope["headers"]).get(b"authorization", b"")):
            await self._app(scope, receive, send)
            return
        refusal = JSONResponse({"detail": "Not authenticated"}, 401, {"www-authenticate": 'Basic realm="captioner"'})
        await refusal(scope, receive, send)

    def _is_known(self, header: bytes) -> bool:
        kind, _, code = header.partition(b" ")
        try:
            told = base64.b64decode(code, validate=True)
        except binascii.Error:
            return False
        matches = [secrets.compare_digest(told, known) for known in self._known]  # all, in the same time
        return kind.lower() == b"basic" and any(matches)


def check_certificate(certfile: str, keyfile: str) -> None:
    """See that a certificate and its private key can be used, before anything is loaded.

    Raises:
        OptionError: one cannot be read, or they do not belong together.
    """
    _check_readable(certfile)  # the loader below does not tell which it cannot read
    _check_readable(keyfile)
    try:
        # Without a password it would be asked for on the terminal, and a server may have none.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, password="")
    except OSError as error:
        raise OptionError(
            f"{certfile} and {keyfile}: no certificate with its private key, unlocked, both as PEM"
        ) from error


def _check_readable(file: str) -> None:
    try:
        Path(file).read_bytes()
    except (OSError, ValueError) as error:
        raise OptionError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
