"""What programs may call, once more for assistants: as tools of the Model Context Protocol (MCP).

An image comes inside the call, so that a tool reads no file of the server and asks no other machine.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import ToolAnnotations
from pydantic import Field, ValidationError

from captioner import __version__
from captioner.errors import CaptionerError
from captioner.web.api import (
    MOST_IMAGES,
    Captioned,
    Record,
    Scored,
    answering,
    captioned,
    chosen,
    recorded,
    scored,
)
from captioner.web.settings import Settings

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from captioner.web.metrics import Metrics
    from captioner.web.options import ServingOptions
    from captioner.web.service import Encoded, Service

PATH = "/mcp"

Result = TypeVar("Result")

_NOT_A_FILE = "send the file itself in base64, neither its address nor its path"
_IMAGE = "the image: its file (JPEG, PNG, WebP and so on) in base64, or a data: address of it"
_READS_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)


def _setting(name: str) -> Any:
    """What :class:`Settings` says of a field, for the tool's schema."""
    (item,) = (item for item in fields(Settings) if item.name == name)
    text = str(item.metadata["help"])
    if "low" in item.metadata:
        text += f"; {item.metadata['low']} to {item.metadata['high']}"
    if item.default is None:
        text += ", or 0 for what suits the model"
    return Field(description=text)


class _Server(MCPServer[Any]):
    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Call a tool; arguments that do not fit are told in one line."""
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            found = error.__cause__.errors(include_url=False, include_input=False)
            told = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found)
            raise ToolError("; ".join(told)) from error.__cause__


def build_tools(service: Service, metrics: Metrics, options: ServingOptions) -> Starlette:
    """An application that offers ``caption``, ``caption_batch`` and ``score`` at :data:`PATH`.

    Args:
        service: the model.
        metrics: where calls are counted.
        options: how to serve.
    """
    # Else the server's log would get the look of the SDK.
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    server = _Server(
        "captioner",
        version=__version__,
        instructions="Writes captions for images, and tells how probable a sentence is for one.",
        log_level="WARNING",
    )
    _add_tools(server, service, metrics, options)
    # By default the SDK refuses other names than those of this machine where it alone is served; a proxy
    # may hand on any name.
    any_name = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return server.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        max_request_body_size=2 * options.max_upload_bytes,  # in base64 a file is a third longer
        transport_security=any_name if options.root_path else None,
        host=options.host,
    )


def _add_tools(server: MCPServer[Any], service: Service, metrics: Metrics, options: ServingOptions) -> None:
    # More than may wait, so that these are refused and not kept waiting here.
    threads = CapacityLimiter(2 * options.queue_size + options.max_batch_size)

    def encode(image: str, name: str = "the image") -> Encoded:
        return service.encode(decode_image(image, name, options.max_upload_bytes), name=name)

    async def answer(tool: str, work: Callable[[], Result]) -> Result:
        def counted() -> Result:
            with answering(metrics, f"{PATH}/{tool}", ToolError):
                return work()

        return await run_sync(counted, limiter=threads)

    @server.tool(annotations=_READS_ONLY)
    async def caption(
        image: Annotated[str, Field(description=_IMAGE)],
        method: Annotated[Literal["beam", "greedy", "sample"], _setting("method")] = "beam",
        beam_size: Annotated[int, _setting("beam_size")] = 0,
        temperature: Annotated[float, _setting("temperature")] = 0.8,
        top_p: Annotated[float, _setting("top_p")] = 0.9,
        max_length: Annotated[int, _setting("max_length")] = 0,
        seed: Annotated[int, _setting("seed")] = 0,
    ) -> Captioned:
        """Write a caption for an image; with log-probabilities, word by word, and alternatives."""
        return await answer(
            "caption",
            lambda: captioned(
                service,
                encode(image),
                chosen(method, beam_size, temperature, top_p, max_length, seed),
            ),
        )

    @server.tool(annotations=_READS_ONLY)
    async def caption_batch(
        images: Annotated[list[str], Field(description=f"{MOST_IMAGES} at most, each {_IMAGE}")],
    ) -> list[Record]:
        """Caption several images; in the same order, each with its caption or an error."""
        names = [f"image {number}" for number in range(1, len(images) + 1)]
        return await answer(
            "caption_batch",
            lambda: recorded(service, names, lambda place: encode(images[place], names[place])),
        )

    @server.tool(annotations=_READS_ONLY)
    async def score(
        image: Annotated[str, Field(description=_IMAGE)],
        text: Annotated[str, Field(description="the sentence")],
    ) -> Scored:
        """Tell how probable a sentence is for an image: log P(text | image), perplexity, each word."""
        return await answer("score", lambda: scored(service, encode(image), text))


def decode_image(text: str, name: str, limit: int) -> bytes:
    """The bytes of an image that was sent as text.

    Args:
        text: base64, perhaps behind the head of a ``data:`` address.
        name: what messages call it.
        limit: most bytes.

    Raises:
        CaptionerError: it is something else or too large.
    """
    head, comma, data = text.partition(",")
    if not comma:
        head, data = "", text
    if head and not (head.startswith("data:") and head.endswith(";base64")):
        raise CaptionerError(f"{name}: {_NOT_A_FILE}")
    try:
        found = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise CaptionerError(f"{name}: {_NOT_A_FILE}") from error
    if len(found) > limit:
        raise CaptionerError(f"{name}: is larger than {limit / 1e6:g} MB", "send a smaller one")
    return found
