"""How the page is served, as data; and the files that these options name, checked before anything is loaded."""

import socket
import ssl
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from captioner.errors import OptionError
from captioner.model.config import RUNTIMES
from captioner.options import check, option


@dataclass(frozen=True)
class ServingOptions:
    """Options of ``captioner serve`` and ``python app.py``, whose flags are made from these fields.

    Raises:
        OptionError: a value is out of range, or two do not go together.
    """

    weights: str | None = option(None, "checkpoint (by default the shipped one)")
    runtime: str = option("auto", "what computes, as of captioner caption", choices=RUNTIMES)
    device: str = option("auto", "cpu, cuda, mps or auto", metavar="NAME")
    host: str = option("127.0.0.1", "address to listen on; the default is this machine alone")
    port: int = option(7860, "port to listen on", low=0, high=(1 << 16) - 1)
    auth_file: str | None = option(None, "file with a line USER:PASSWORD for each visitor who may come in")
    root_path: str = option("", "path under which a proxy offers the page, such as /captioner")
    ssl_keyfile: str | None = option(None, "private key for https")
    ssl_certfile: str | None = option(None, "certificate for https")
    max_batch_size: int = option(8, "images of different visitors that go through the model together", low=1)
    queue_size: int = option(64, "requests that may wait; more are refused", low=1)
    max_upload_mb: float = option(20, "largest upload, in megabytes", above=0)
    timeout: float = option(60, "seconds that a request may wait for the model", above=0)
    mcp: bool = option(False, "also offer what programs may call as MCP tools, at /mcp")

    def __post_init__(self) -> None:
        check(self)
        if self.root_path and not self.root_path.startswith("/"):
            raise OptionError(f"`root_path` must begin with a slash, not {self.root_path!r}")
        if (self.ssl_keyfile is None) != (self.ssl_certfile is None):
            raise OptionError("`ssl_keyfile` and `ssl_certfile` belong together", "give both")

    @property
    def local(self) -> bool:
        """Whether only this machine is served."""
        try:
            return all(ip_address(found[4][0]).is_loopback for found in socket.getaddrinfo(self.host, None))
        except (OSError, UnicodeError):
            return False

    @property
    def name(self) -> str:
        """The host, as addresses have it."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def most_calls(self) -> int:
        """Calls under way together: more than may wait, so that the surplus is refused and not kept waiting."""
        return 2 * self.queue_size + self.max_batch_size

    @property
    def max_upload_bytes(self) -> int:
        """The largest upload."""
        return int(self.max_upload_mb * 1e6)


def read_users(file: Path) -> list[tuple[str, str]]:
    """Read an ``--auth-file``: a line ``USER:PASSWORD`` for each visitor, and comments after ``#``.

    Raises:
        OptionError: the file cannot be read, or a line is not such a pair.
    """
    try:
        text = _read(file).decode()
    except UnicodeDecodeError as error:
        raise OptionError(f"{file}: cannot be read (not UTF-8)") from error
    if sys.platform != "win32" and file.stat().st_mode & 0o044:  # readable by its group or by everybody
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
        raise OptionError(f"{file}: contains no visitors", "give a line USER:PASSWORD")
    return users


def check_certificate(certfile: str, keyfile: str) -> None:
    """Check that a certificate and its private key can be used.

    Raises:
        OptionError: one cannot be read, or they do not belong together.
    """
    for file in (certfile, keyfile):
        _read(Path(file))  # the loader below does not say which one it cannot read
    try:
        # Without a password OpenSSL would ask for it on the terminal, and a server may have none.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, password="")
    except OSError as error:
        both = f"{certfile} and {keyfile}"
        raise OptionError(f"{both}: not a certificate with its unlocked private key, as PEM") from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:
        raise OptionError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
