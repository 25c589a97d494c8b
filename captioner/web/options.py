"""How the page is served, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from captioner.errors import OptionError

LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class ServingOptions:
    """Options of ``captioner serve`` and ``python app.py``, whose flags are made from these fields.

    Raises:
        OptionError: a value is out of range, or two do not go together.
    """

    weights: str | None = _option(None, "checkpoint (by default the shipped one)")
    host: str = _option("127.0.0.1", "address to listen on; the default is this machine alone")
    port: int = _option(7860, "port to listen on")
    auth_file: str | None = _option(None, "file with a line USER:PASSWORD for each visitor that may come in")
    root_path: str = _option("", "path under which a proxy offers the page, such as /captioner")
    ssl_keyfile: str | None = _option(None, "private key for https")
    ssl_certfile: str | None = _option(None, "certificate for https")
    max_batch_size: int = _option(8, "pictures of different visitors that go through the model together")
    queue_size: int = _option(64, "requests that may wait; more are refused")
    max_upload_mb: float = _option(20, "largest upload, in megabytes")
    timeout: float = _option(60, "seconds that a request may wait for the model")
    mcp: bool = _option(False, "also offer what programs may call as MCP tools, at /mcp")

    def __post_init__(self) -> None:
        self._check("port", type(self.port) is int and 0 <= self.port < 1 << 16, "from 0 to 65535")
        for name in ("max_batch_size", "queue_size"):
            value = getattr(self, name)
            self._check(name, type(value) is int and value >= 1, "a whole number of at least 1")
        for name in ("max_upload_mb", "timeout"):
            self._check(name, 0 < getattr(self, name) < math.inf, "above 0 and finite")
        if self.root_path and not self.root_path.startswith("/"):
            raise OptionError(f"--root-path must begin with a slash, not {self.root_path!r}")
        if (self.ssl_keyfile is None) != (self.ssl_certfile is None):
            raise OptionError("--ssl-keyfile and --ssl-certfile belong together; give both")

    @property
    def max_upload_bytes(self) -> int:
        """The largest upload."""
        return int(self.max_upload_mb * 1e6)

    def _check(self, name: str, good: bool, demand: str) -> None:
        if not good:
            flag = "--" + name.replace("_", "-")
            raise OptionError(f"{flag} must be {demand}, not {getattr(self, name)!r}")
