"""The tools for assistants, called by a real client of the Model Context Protocol over HTTP."""

from __future__ import annotations

import base64
import sys
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")
pytest.importorskip("mcp.server.mcpserver", reason="needs mcp: pip install 'captioner[mcp]'")

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from captioner.captioner import Captioner
from captioner.errors import CaptionerError
from captioner.web.options import ServingOptions
from captioner.web.page import build_app
from captioner.web.service import Service
from tests.web.awaiting import run
from tests.web.hostile import HOSTILE, good_png
from tests.web.serving import served
from tests.web.waiting import Narrow

ROOT = Path(__file__).parents[2]
USERS = [("anna", "geheim"), ("bert", "passwort")]


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


GOOD = in_base64(good_png())


class Assistant:
    """Speaks to a server as an assistant does."""

    def __init__(self, address: str, users: tuple[str, str] | None = None) -> None:
        self.address, self._users = address, users

    def do(self, action: Callable[[Client], Awaitable[Any]]) -> Any:
        async def connected() -> Any:
            async with httpx2.AsyncClient(auth=self._users, timeout=120) as http:
                transport = streamable_http_client(f"{self.address}/mcp", http_client=http)
                async with Client(transport) as client:
                    return await action(client)

        return run(connected())

    def call(self, tool: str, **arguments: Any) -> Any:
        """What a tool answers."""
        answer = self.do(lambda client: client.call_tool(tool, arguments))
        assert not answer.is_error, answer.content
        return answer.structured_content

    def refusal(self, tool: str, **arguments: Any) -> str:
        """What a tool says instead of an answer."""
        answer = self.do(lambda client: client.call_tool(tool, arguments))
        assert answer.is_error
        text: str = answer.content[0].text
        assert "Traceback" not in text
        assert "pydantic" not in text
        return text


@pytest.fixture(scope="module")
def assistant(service: Service) -> Iterator[Assistant]:
    with served(build_app(service, ServingOptions(mcp=True, max_upload_mb=1))) as address:
        yield Assistant(address)


def test_there_are_three_tools_and_nothing_else(assistant: Assistant) -> None:
    tools = {tool.name: tool for tool in assistant.do(lambda client: client.list_tools()).tools}
    assert set(tools) == {"caption", "caption_batch", "score"}
    for tool in tools.values():
        assert tool.description
        assert tool.output_schema
        assert tool.annotations.read_only_hint
        for name, schema in tool.input_schema["properties"].items():
            assert schema.get("description"), name
            assert schema.get("type") or schema.get("enum"), name
    caption = tools["caption"]
    assert caption.input_schema["required"] == ["image"]
    assert caption.input_schema["properties"]["method"]["enum"] == ["beam", "greedy", "sample"]
    assert "1 to 10, or 0" in caption.input_schema["properties"]["beam_size"]["description"]
    assert {"caption", "log_prob", "words", "captions"} <= set(caption.output_schema["properties"])
    assert assistant.do(lambda client: client.list_resources()).resources == []
    assert assistant.do(lambda client: client.list_prompts()).prompts == []


def test_tools_answer_what_the_captioner_writes(assistant: Assistant, captioner: Captioner, images: list[Path]) -> None:
    cat = next(sample for sample in images if sample.stem == "cat")
    image = in_base64(cat.read_bytes())
    (best, *_) = captioner.caption([cat])[0]
    found = assistant.call("caption", image=image)
    assert found["caption"] == best.text
    assert found["log_prob"] == pytest.approx(best.log_prob, abs=1e-4)
    assert [word["word"] for word in found["words"]] == [*best.words]
    assert found["captions"][0]["caption"] == best.text
    assert len(found["captions"]) == captioner.options.beam_size
    address = f"data:image/jpeg;base64,{image}"
    assert len(assistant.call("caption", image=address, method="greedy")["captions"]) == 1
    weighed = assistant.call("score", image=address, text=best.text)
    assert weighed["log_prob"] == pytest.approx(best.log_prob, abs=1e-4)
    assert weighed["perplexity"] > 1
    good, bad = assistant.call("caption_batch", images=[image, in_base64(b"no image")])["result"]
    assert (good["image"], good["caption"], good["error"]) == ("image 1", best.text, None)
    assert bad["image"] == "image 2"
    assert bad["error"].startswith("image 2: ")


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_bad_images_are_refused_and_the_next_is_captioned(assistant: Assistant, name: str) -> None:
    content, message = HOSTILE[name]
    assert message in assistant.refusal("caption", image=in_base64(content()))
    assert assistant.call("caption", image=GOOD)["caption"]


def test_no_file_of_the_server_is_read_and_no_address_asked(assistant: Assistant) -> None:
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Handler) as elsewhere:
        Thread(target=elsewhere.serve_forever, daemon=True).start()
        cat = ROOT / "data" / "samples" / "cat.jpg"
        address = f"http://127.0.0.1:{elsewhere.server_port}/x"
        for image in (str(cat), cat.as_uri(), "/etc/passwd", "../etc/passwd", address, f"{address},y"):
            assert "send the file itself in base64" in assistant.refusal("caption", image=image)
            assert "send the file itself in base64" in assistant.refusal("score", image=image, text="a dog")
            (record,) = assistant.call("caption_batch", images=[image])["result"]
            assert "send the file itself in base64" in record["error"]
        # A path of letters alone could be base64, of something that is no image.
        assert "not an image" in assistant.refusal("caption", image="/etc/hosts/mcp12")
        for image in ({"path": str(cat), "meta": {"_type": "gradio.FileData"}}, {"url": address}, 5, None):
            assert "image: Input should be a valid string" in assistant.refusal("caption", image=image)
        elsewhere.shutdown()
    assert asked == []


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("caption", {"image": GOOD, "method": "fly"}, "method: Input should be 'beam', 'greedy' or 'sample'"),
        ("caption", {"image": GOOD, "beam_size": 99}, "beam_size must be a whole number from 1 to 10"),
        ("caption", {}, "image: Field required"),
        ("caption", {"image": GOOD, "beamsize": 3}, "beamsize: Extra inputs are not permitted"),
        ("caption", {"image": ""}, "file is empty"),
        ("caption", {"image": in_base64(bytes(1_000_001))}, "is larger than 1 MB"),
        ("caption_batch", {"images": []}, "Send at least one image"),
        ("caption_batch", {"images": [""] * 101}, "Send at most 100 images"),
        ("score", {"image": GOOD, "text": "dog " * 10_000}, "too long"),
        ("score", {"image": GOOD, "text": "<script>\x00"}, "does not know"),
        ("respond", {}, "Unknown tool"),
    ],
)
def test_what_does_not_fit_is_told(assistant: Assistant, tool: str, arguments: dict[str, Any], message: str) -> None:
    assert message in assistant.refusal(tool, **arguments)


def test_large_and_strange_requests(assistant: Assistant) -> None:
    json = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    with httpx.Client(base_url=assistant.address, timeout=120) as http:
        assert http.post("/mcp", content=bytes(4_000_000), headers=json).status_code == 413
        assert http.post("/mcp", content=b"{nope", headers=json).status_code == 400
        # What a web page elsewhere could make a browser send that thinks it speaks to that page's server.
        assert http.post("/mcp", json={}, headers=json | {"host": "evil.example"}).status_code == 421
        assert "captioner_requests_total" in http.get("/metrics").text
    assistant.refusal("caption", image="")
    assert 'endpoint="/mcp/caption"' in httpx.get(f"{assistant.address}/metrics").text


def test_without_the_option_there_are_no_tools(service: Service) -> None:
    with served(build_app(service, ServingOptions())) as address:
        assert httpx.post(f"{address}/mcp", json={}, timeout=120).status_code in (404, 405)
        assert httpx.post(f"{address}/gradio_api/mcp", json={}, timeout=120).status_code in (404, 405)


def test_passwords_are_asked(service: Service) -> None:
    with served(build_app(service, ServingOptions(mcp=True), USERS)) as address:
        for user in (None, ("anna", "passwort"), ("anna", ""), ("", ""), ("eve", "geheim")):
            answer = httpx.post(f"{address}/mcp", json={}, auth=user, timeout=120)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Basic")
        for header in ("", "Basic", "Basic %%%", "Bearer Z2VoZWlt", "Basic w6Q="):
            strange = {"authorization": header}
            assert httpx.post(f"{address}/mcp", json={}, headers=strange, timeout=120).status_code == 401
        assert Assistant(address, USERS[1]).call("caption", image=GOOD)["caption"]


def test_a_full_queue_is_told(narrow: Narrow) -> None:
    with served(build_app(narrow.service, ServingOptions(mcp=True, queue_size=1))) as address:
        assistant = Assistant(address)
        colours = [in_base64(good_png(colour)) for colour in ("red", "green", "blue")]
        threads = [Thread(target=assistant.call, args=["caption"], kwargs={"image": x}) for x in colours[:2]]
        threads[0].start()
        narrow.wait_until_busy(waiting=0)
        threads[1].start()
        narrow.wait_until_busy(waiting=1)
        assert "The server is busy" in assistant.refusal("caption", image=colours[2])
        narrow.go_on()
        for thread in threads:
            thread.join(60)
        assert assistant.call("caption", image=colours[2])["caption"]


def test_what_is_to_be_installed_is_told(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "captioner.web.mcp", raising=False)
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    with pytest.raises(CaptionerError, match=r"`mcp` needs the package mcp; run: pip install 'captioner\[mcp\]'"):
        build_app(service, ServingOptions(mcp=True))
