"""What programs may call, once more for assistants: as tools of the Model Context Protocol (MCP).

An image comes inside the call, so that a tool reads no file of the server and sends no request to another machine.
"""

import base64
import logging
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from anyio import CapacityLimiter, to_thread
from mcp.server import mcpserver, transport_security
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field, ValidationError

from captioner import CaptionerError, __version__
from captioner.web import api, render, settings
from captioner.web.options import ServingOptions
from captioner.web.service import Prepared, Service

PATH = "/mcp"

Result = TypeVar("Result")

_IMAGE = "the image: its file (JPEG, PNG, WebP and so on) in base64, or a data: address of it"
_READS_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)


def _setting(name: str) -> Any:
    """Describe a field of :class:`captioner.web.settings.Settings` for the tool's schema."""
    item = settings.Settings.__dataclass_fields__[name]
    text = str(item.metadata["help"])
    if "low" in item.metadata:
        text += f"; {item.metadata['low']} to {item.metadata['high']}"
    if item.default is None:
        text += ", or 0 for what suits the model"
    return Field(description=text)


class _Server(mcpserver.MCPServer[Any]):
    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Call a tool; arguments that do not fit are reported in one line."""
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            found = error.__cause__.errors(include_url=False, include_input=False)
            lines = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found)
            raise ToolError("; ".join(lines)) from error.__cause__


def build_tools(service: Service, metrics: api.Metrics, options: ServingOptions) -> Any:
    """Build an application that offers ``caption``, ``caption_batch`` and ``score`` at :data:`PATH`."""
    # Otherwise the SDK would change the format of the server's log.
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    server = _Server(
        "captioner",
        version=__version__,
        instructions="Writes captions for images, and tells how probable a sentence is for one.",
        log_level="WARNING",
    )
    # Otherwise arguments that are misspelt would be ignored.
    mcpserver.utilities.func_metadata.ArgModelBase.model_config["extra"] = "forbid"  # type: ignore[attr-defined]
    _add_tools(server, service, metrics, options)
    security = transport_security.TransportSecuritySettings(enable_dns_rebinding_protection=False)  # the gate's task
    return server.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        max_request_body_size=2 * options.max_upload_bytes,  # in base64 a file is a third longer
        transport_security=security,
    )


def _add_tools(
    server: mcpserver.MCPServer[Any], service: Service, metrics: api.Metrics, options: ServingOptions
) -> None:
    threads = CapacityLimiter(options.most_calls)

    def prepare(image: str, name: str = "the image") -> Prepared:
        return service.prepare(decode_image(image, name, options.max_upload_bytes), name=name)

    async def answer(tool: str, work: Callable[[], Result]) -> Result:
        def counted() -> Result:
            with metrics.request(f"{PATH}/{tool}", lambda error: ToolError(render.for_visitor(error))):
                return work()

        return await to_thread.run_sync(counted, limiter=threads)

    @server.tool(annotations=_READS_ONLY)
    async def caption(
        image: Annotated[str, Field(description=_IMAGE)],
        method: Annotated[Literal["beam", "greedy", "sample"], _setting("method")] = "beam",
        beam_size: Annotated[int, _setting("beam_size")] = 0,
        temperature: Annotated[float, _setting("temperature")] = 0.8,
        top_p: Annotated[float, _setting("top_p")] = 0.9,
        max_length: Annotated[int, _setting("max_length")] = 0,
        seed: Annotated[int, _setting("seed")] = 0,
    ) -> api.Captioned:
        """Write a caption for an image; with log-probabilities, word by word, and alternatives."""

        def work() -> api.Captioned:
            settings = api.chosen(method, beam_size, temperature, top_p, max_length, seed)
            return api.captioned(service, prepare(image), "the image", settings)

        return await answer("caption", work)

    @server.tool(annotations=_READS_ONLY)
    async def caption_batch(
        images: Annotated[list[str], Field(description=f"{api.MOST_IMAGES} at most, each {_IMAGE}")],
    ) -> list[api.Record]:
        """Caption several images; in the same order, each with its caption or an error."""
        names = [f"image {number}" for number in range(1, len(images) + 1)]

        def work() -> list[api.Record]:
            return api.recorded(service, names, lambda at: prepare(images[at], names[at]), settings.Settings())

        return await answer("caption_batch", work)

    @server.tool(annotations=_READS_ONLY)
    async def score(
        image: Annotated[str, Field(description=_IMAGE)],
        text: Annotated[str, Field(description="the sentence")],
    ) -> api.ScoredCaption:
        """Tell how probable a sentence is for an image: log P(text | image), perplexity, each word."""
        return await answer("score", lambda: api.scored(service, prepare(image), [text])[0])


def decode_image(text: str, name: str, limit: int) -> bytes:
    """Decode an image that was sent as base64, perhaps behind the head of a ``data:`` address.

    Raises:
        CaptionerError: it is not base64, or has more bytes than the limit.
    """
    head, _, data = text.rpartition(",")
    try:
        if head and not (head.startswith("data:") and head.endswith(";base64")):
            raise ValueError(head)
        found = base64.b64decode("".join(data.split()), validate=True)
    except ValueError as error:
        raise CaptionerError(f"{name}: send the file itself in base64, neither its address nor its path") from error
    if len(found) > limit:
        raise CaptionerError(f"{name}: is larger than {limit / 1e6:g} MB", "send a smaller one")
    return found
