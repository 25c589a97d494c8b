"""What strangers send over HTTP: each gets a sentence, and the next request its caption."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.web.hostile import HOSTILE, good_png
from tests.web.serving import Answer, Server, record

SECRETS = re.compile(r"/tmp|/work|/etc|site-packages|Traceback|pydantic|gradio\.|object at|Error:|line \d")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _unharmed(server: Server) -> Iterator[None]:
    """After each test the server captions a good image."""
    yield
    answer = server.call("caption", image=server.upload(good_png()))
    assert answer.values, answer.error


def refusal(answer: Answer) -> str:
    assert answer.values is None
    assert answer.error
    assert not SECRETS.search(answer.error), answer.error
    assert "\n" not in answer.error
    return answer.error


def refused_in_batch(server: Server, images: Any) -> str:
    """Why an image of several, or all of them, is refused."""
    answer = server.call("caption_batch", images=images)
    if answer.values is None:
        return refusal(answer)
    return refusal(Answer(None, answer.values[0][0]["error"]))


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_bad_images_are_refused_by_name(server: Server, name: str) -> None:
    content, message = HOSTILE[name]
    data = content()
    upload = server.upload(data, name)
    assert message in refusal(server.call("caption", image=upload))
    answer = server.call("caption_batch", images=[upload, server.upload(good_png())])
    assert answer.values is not None, answer.error
    bad, good = answer.values[0]
    assert message in bad["error"]
    assert good["caption"]


@pytest.mark.parametrize("forged", [ROOT / "data" / "samples" / "cat.jpg", "/etc/passwd", "../../etc/passwd"])
def test_files_of_the_server_are_no_images(server: Server, forged: object) -> None:
    for image in (record(str(forged)), {"path": str(forged)}):
        assert "was not uploaded" in refusal(server.call("caption", image=image))
        assert "was not uploaded" in refusal(server.call("score", image=image, text="a dog"))
        refused_in_batch(server, [image])
    link = server.folder / "link.jpg"
    link.symlink_to(ROOT / "data" / "samples" / "cat.jpg")
    refusal(server.call("caption", image=record(str(link))))
    link.unlink()


def test_no_address_is_asked(server: Server) -> None:
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Handler) as elsewhere:
        thread = Thread(target=elsewhere.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{elsewhere.server_port}/x.jpg"
        for image in (record(address), {"path": address}, record(None, url=address), {"url": address}):
            refusal(server.call("caption", image=image))
            refused_in_batch(server, [image])
        elsewhere.shutdown()
    assert asked == []


@pytest.mark.parametrize("image", ["text", 5, None, [], {}, {"path": {"a": 1}}, record(5), record("a\0b")])
def test_what_is_no_file_is_refused(server: Server, image: Any) -> None:
    refusal(server.call("caption", image=image))
    refused_in_batch(server, [image])
    refused_in_batch(server, image)


def test_impossible_parameters_are_named(server: Server) -> None:
    image = server.upload(good_png())
    for name, value in {"method": "fly", "beam_size": 99, "temperature": "hot", "seed": -1}.items():
        assert name in refusal(server.call("caption", image=image, **{name: value})).lower()
    assert "does not fit" in refusal(server.call_with("caption", image))
    assert "does not fit" in refusal(server.call_with("caption"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog " * 10_000, "too long"),
        ("dog\x00\x1b[31m", "does not know"),
        ("<script>alert(1)</script>", "does not know"),
        ("", "no words"),
        (None, "must be a text"),
        ([1], "must be a text"),
    ],
    ids=["long", "control", "html", "empty", "none", "list"],
)
def test_strange_sentences(server: Server, text: Any, message: str) -> None:
    answer = server.call("score", image=server.upload(good_png()), text=text)
    assert message in refusal(answer)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "..%2f..%2f..%2f..%2fetc/passwd",
        "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "captioner/errors.py",
        "pyproject.toml",
        str(ROOT / "pyproject.toml"),
        str(ROOT / "weights" / "captioner.safetensors"),
        "/proc/self/environ",
    ],
)
def test_files_of_the_server_cannot_be_fetched(server: Server, path: str) -> None:
    for route in ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/static/", "/assets/", "/"):
        answer = server.http.get(route + path)
        assert answer.status_code in (400, 403, 404), route


def test_links_in_the_upload_folder_lead_nowhere(server: Server) -> None:
    link = server.folder / "link.txt"
    link.symlink_to("/etc/passwd")
    assert "root:" not in server.http.get(f"/gradio_api/file={link}").text
    link.unlink()


def test_large_and_malformed_requests(server: Server) -> None:
    large = server.http.post("/gradio_api/upload", files={"files": ("x.jpg", bytes(1_500_000))})
    assert large.status_code == 413
    json = {"content-type": "application/json"}
    assert server.http.post("/gradio_api/call/caption", content=b"{nope", headers=json).status_code == 400
    assert server.http.post("/gradio_api/call/caption", json=[1]).status_code == 400
    form = {"content-type": "multipart/form-data"}
    assert server.http.post("/gradio_api/upload", content=b"x", headers=form).status_code == 400
    for endpoint in ("call/absent", "call/v2/absent", "queue/join"):
        body = {"data": [], "fn_index": 9999, "session_hash": "../x"}
        # The server closes the connection behind such a request.
        answer = server.http.post(f"/gradio_api/{endpoint}", json=body, headers={"connection": "close"})
        assert answer.status_code >= 400
        assert not SECRETS.search(answer.text)


def test_names_of_uploads_do_not_leave_their_folder(server: Server) -> None:
    upload = server.upload(good_png(), "../../../tmp/<b>x\n.png")
    assert (server.folder.parent / upload["path"]).resolve().is_relative_to(server.folder.resolve())


@pytest.mark.parametrize(
    "request_", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"]
)
def test_what_is_no_http_gets_a_sentence_too(server: Server, request_: bytes) -> None:
    address = (server.http.base_url.host, server.http.base_url.port or 0)
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(request_)
        head, _, body = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"frame-ancestors" in head
    assert body == b'{"error":"Invalid HTTP request received."}'
