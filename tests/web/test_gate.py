"""What no request gets past: strangers, endless bodies, broken JSON."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from select import select

import httpx
import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")

from captioner.web import gate
from captioner.web.options import ServingOptions
from captioner.web.page import build_app
from captioner.web.service import Service
from tests.web.hostile import good_png
from tests.web.serving import served

JSON = {"content-type": "application/json"}
DOORS = ("/", "/config", "/api/caption", "/gradio_api/call/caption", "/gradio_api/upload", "/mcp", "/health")


@pytest.fixture(scope="module")
def http(service: Service) -> Iterator[httpx.Client]:
    pytest.importorskip("mcp.server.mcpserver", reason="needs mcp: pip install 'captioner[mcp]'")
    with (
        served(build_app(service, ServingOptions(max_upload_mb=1, mcp=True))) as address,
        httpx.Client(base_url=address, timeout=120) as client,
    ):
        yield client


@pytest.mark.parametrize("path", DOORS)
def test_pages_elsewhere_cannot_reach_it(http: httpx.Client, path: str) -> None:
    for host in ("evil.example", "evil.example:7860", "127.0.0.1.evil.example", "127.0.0.1:evil.example", "::1", ""):
        answer = http.post(path, headers={"host": host})
        assert (answer.status_code, len(answer.json())) == (421, 1)
    for origin in ("http://evil.example", "null", "http://localhost:1", "https://127.0.0.1"):
        assert http.post(path, headers={"origin": origin}).status_code == 403
    own = ("origin", str(http.base_url).rstrip("/"))
    assert http.post(path, headers=[own, ("origin", "http://evil.example")]).status_code == 403


def test_its_own_pages_may(http: httpx.Client) -> None:
    own = {"origin": str(http.base_url).rstrip("/")}
    assert http.post("/api/caption", files={"image": ("x.png", good_png())}, headers=own).status_code == 200
    port = http.base_url.port
    for host in (f"localhost:{port}", f"[::1]:{port}", "127.0.0.1", "LocalHost"):
        assert http.get("/health", headers={"host": host, "origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize("options", [ServingOptions(host="0.0.0.0"), ServingOptions(root_path="/captioner")])
def test_where_others_may_come_any_name_will_do(service: Service, options: ServingOptions) -> None:
    with served(build_app(service, options)) as address:
        for path in ("/health", f"{options.root_path}/health"):  # a proxy may leave its path there
            assert httpx.get(address + path, headers={"host": "photos.example"}, timeout=120).status_code == 200
        strange = {"host": "photos.example", "origin": "https://evil.example", "access-control-request-method": "POST"}
        for method, path in (("GET", "/config"), ("OPTIONS", "/gradio_api/queue/join"), ("GET", "/health")):
            answer = httpx.request(method, address + path, headers=strange, timeout=120)
            assert answer.status_code in (200, 405)
            assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/gradio_api/call/caption", "/gradio_api/call/v2/caption", "/gradio_api/queue/join"])
@pytest.mark.parametrize(
    "body",
    [
        b"{nope",
        b'{"data": [NaN]}',
        b'{"data": ["\\ud800"]}',
        b'{"data": ["\xff"]}',
        '{"data": []}'.encode("utf-16"),
        b"[" * 100_000,
        b"[1]",
        b"7",
        b"",
        b'{"unknown": 1}',
        b'{"data": {"a": 1}, "fn_index": "x"}',
    ],
    ids=range(11),
)
def test_broken_json_is_400_with_a_sentence(http: httpx.Client, path: str, body: bytes) -> None:
    answer = http.post(path, content=body, headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["error"].endswith(".")
    assert "/tmp" not in answer.text


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/x+json"])
def test_json_has_many_names(http: httpx.Client, kind: str) -> None:
    answer = http.post("/gradio_api/call/caption", content=b'{"data": [NaN]}', headers={"content-type": kind})
    assert answer.status_code == 400
    assert "not JSON" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/caption", 405),
        ("PUT", "/health", 405),
        ("DELETE", "/mcp", 405),
        ("POST", "/config", 405),
        ("GET", "/api/nothing", 404),
        ("POST", "/api/caption/", 404),
        ("GET", "/nothing", 404),
        ("GET", "/gradio_api/upload_progress?upload_id=x", 404),
        ("GET", "/gradio_api/stream/x/y/2/playlist.m3u8", 404),
        ("GET", "/static/", 400),
    ],
)
def test_what_is_not_there_is_a_sentence(http: httpx.Client, method: str, path: str, status: int) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    if path != "/mcp":  # which has a form of its own
        assert answer.json()["error"].endswith(".")
    if path in ("/api/caption", "/health"):
        assert answer.headers["allow"] == {"/api/caption": "POST", "/health": "GET"}[path]


@pytest.mark.parametrize("body", ["{}", '{"data": []}', '{"data": [], "fn_index": -1}', '{"data": [0], "fn_index": 1}'])
@pytest.mark.parametrize("path", ["run/caption", "run/absent", "api/score", "queue/join", "component_server"])
def test_no_function_of_gradio_fails(http: httpx.Client, path: str, body: str) -> None:
    answer = http.post(f"/gradio_api/{path}", content=body, headers=JSON)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"].endswith(".")


def test_an_event_that_is_not_known_is_told(http: httpx.Client) -> None:
    assert http.get("/gradio_api/call/caption/no-such-event").text.startswith("event: error\n")


def test_parts_of_files_are_given_or_refused(http: httpx.Client) -> None:
    (path,) = http.post("/gradio_api/upload", files={"files": ("x.png", good_png())}).json()
    for parts, status in (("0-3", 206), ("0-1,2-3", 400), ("x", 400), ("999999-", 416)):
        answer = http.get(f"/gradio_api/file={path}", headers={"range": f"bytes={parts}"})
        assert answer.status_code == status
        assert status == 206 or answer.json()["error"].endswith(".")


def test_a_body_is_refused_while_it_comes(http: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(300):
            yield b" " * 100_000

    for path in ("/gradio_api/call/caption", "/mcp", "/gradio_api/queue/join"):
        assert http.post(path, content=endless(), headers=JSON).status_code == 413
        assert http.post(path, content=bytes(4_000_000), headers=JSON).status_code == 413
    files = {"files": ("x.png", bytes(1_200_000))}
    assert http.post("/gradio_api/upload", files=files).status_code == 413
    assert http.get("/health").status_code == 200


def test_answers_carry_headers_that_protect(http: httpx.Client) -> None:
    for answer in (http.get("/"), http.get("/docs"), http.post("/api/caption"), http.get("/nothing")):
        assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/gradio_api/file=http://127.0.0.1:1/x", "/gradio_api/file=https://example.org/x"])
def test_addresses_are_not_fetched(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 403


@pytest.mark.parametrize("drip", [b"", b"x"])
def test_a_request_that_stops_or_drips_is_given_up(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, drip: bytes
) -> None:
    monkeypatch.setattr(gate, "STALLED", 1)
    host, port = str(http.base_url.host), http.base_url.port or 0
    with socket.create_connection((host, port), timeout=60) as stalled:
        head = f"POST /api/caption HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: image/png\r\n"
        stalled.sendall(head.encode() + b"content-length: 99\r\n\r\na few bytes")
        start = time.monotonic()
        answer = b""
        while not select([stalled], [], [], 0.3)[0]:
            stalled.sendall(drip)
        while part := stalled.recv(4096):
            answer += part
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"error":"The request did not go on."' in answer
        assert time.monotonic() - start < 50
