"""How the page is served, as data."""

from dataclasses import dataclass

from captioner.errors import OptionError
from captioner.options import check, option

LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ServingOptions:
    """Options of ``captioner serve`` and ``python app.py``, whose flags are made from these fields.

    Raises:
        OptionError: a value is out of range, or two do not go together.
    """

    weights: str | None = option(None, "checkpoint (by default the shipped one)")
    host: str = option("127.0.0.1", "address to listen on; the default is this machine alone")
    port: int = option(7860, "port to listen on", low=0, high=(1 << 16) - 1)
    auth_file: str | None = option(None, "file with a line USER:PASSWORD for each visitor that may come in")
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
    def max_upload_bytes(self) -> int:
        """The largest upload."""
        return int(self.max_upload_mb * 1e6)
