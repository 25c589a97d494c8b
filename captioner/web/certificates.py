"""The certificate for https."""

from __future__ import annotations

import ssl
from pathlib import Path

from captioner.errors import OptionError


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
