from __future__ import annotations

import asyncio
import io
import re
import socket
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from captioner import __version__
from captioner.captioner import Captioner
from captioner.decoding.options import DecodingOptions
from captioner.web import server as server_module
from captioner.web.options import ServingOptions
from captioner.web.server import listen
from captioner.web.service import Service
from tests.web.hostile import flat_png, good_png
from tests.web.serving import COMMAND, Server, running, served

pytest.importorskip("gradio", reason="the page needs the extra 'app'")

ROOT = Path(__file__).parents[2]


def coloured(number: int) -> bytes:
    """One of many different images."""
    return good_png(f"#{number * 48271 % (1 << 24):06x}")


def rotated_jpeg(path: Path) -> bytes:
    """An image that lies on its side, with an EXIF entry that says so."""
    with Image.open(path) as image:
        turned = image.convert("RGB").resize((200, 120)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def test_health_tells_version_and_weights(server: Server, captioner: Captioner) -> None:
    assert server.http.get("/health").json() == {
        "status": "ready",
        "version": __version__,
        "weights": "small",
        "digest": captioner.digest,
    }


@pytest.mark.parametrize(("weights", "state"), [("absent.safetensors", "failed"), (None, "loading")])
def test_health_is_503_without_a_model(weights: str | None, state: str) -> None:
    from fastapi.testclient import TestClient

    from captioner.web.page import build_app

    service = Service(weights)
    if weights:
        service.models.start()
        with pytest.raises(Exception, match="cannot be loaded"):
            service.models.load()
    answer = TestClient(build_app(service, ServingOptions()), base_url="http://127.0.0.1").get("/health")
    assert answer.status_code == 503
    assert (answer.json()["status"], answer.json()["digest"]) == (state, None)


def test_one_image_has_one_caption_everywhere(
    server: Server, service: Service, captioner: Captioner, images: list[Path], tmp_path: Path
) -> None:
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(rotated_jpeg(images[0]))
    for path in (turned, images[1]):
        data = path.read_bytes()
        if len(data) > 1_000_000:
            continue
        expected = captioner.caption([path])[0][0].text
        answer = server.call("caption", image=server.upload(data))
        assert answer.values is not None, answer.error
        assert answer.values[0] == expected
        assert service.caption(service.prepare(path))[0].text == expected


def test_every_parameter_but_the_first_has_a_default_and_all_are_described(server: Server) -> None:
    endpoints = server.http.get("/gradio_api/info").json()["named_endpoints"]
    assert set(endpoints) == {"/caption", "/caption_batch", "/score"}
    first, *others = endpoints["/caption"]["parameters"]
    assert first["parameter_name"] == "image"
    assert not first["parameter_has_default"]
    assert all(parameter["parameter_has_default"] for parameter in others)
    assert endpoints["/caption"]["returns"][0]["python_type"]["type"] == "str"


def test_32_programs_at_once_all_get_their_own_captions(server: Server, captioner: Captioner, tmp_path: Path) -> None:
    images = [coloured(number) for number in range(32)]
    before = requests_of(server, "/caption")

    def ask(data: bytes) -> Any:
        return server.call("caption", image=server.upload(data), max_length=5)

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, images))
    assert [answer.error for answer in answers] == [None] * 32
    paths = [tmp_path / f"{number}.png" for number in range(32)]
    for path, data in zip(paths, images, strict=True):
        path.write_bytes(data)
    alone = captioner.caption(paths, DecodingOptions(min_length=4, max_length=5))
    assert [answer.values[0] for answer in answers] == [captions[0].text for captions in alone]
    assert requests_of(server, "/caption") == before + 32


def test_32_programs_of_one_request_each(server: Server, captioner: Captioner, tmp_path: Path) -> None:
    images = [coloured(number + 100) for number in range(32)]

    def ask(data: bytes) -> Any:
        return server.http.post("/api/caption", files={"image": ("x.png", data)}).json()["caption"]

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(ask, images))
    paths = [tmp_path / f"{number}.png" for number in range(32)]
    for path, data in zip(paths, images, strict=True):
        path.write_bytes(data)
    assert found == [captions[0].text for captions in captioner.caption(paths)]


def requests_of(server: Server, endpoint: str) -> float:
    text = server.http.get("/metrics").text
    found = re.search(rf'^captioner_requests_total{{endpoint="{endpoint}"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0


def test_metrics_are_prometheus_text(server: Server) -> None:
    answer = server.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for name in ("captioner_queue_length", "captioner_latency_seconds"):
        assert f"# TYPE {name} " in answer.text


def test_half_open_connections_are_closed(server: Server) -> None:
    address = (str(server.http.base_url.host), server.http.base_url.port or 0)
    connections = [socket.create_connection(address, timeout=100) for _ in range(3)]
    _, slow, again = connections
    slow.sendall(b"GET /health HTTP/1.1\r\nhost: 127")
    again.sendall(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    assert again.recv(4096).startswith(b"HTTP/1.1 200")
    again.sendall(b"GET /hea")
    assert server.http.get("/health").status_code == 200
    for connection in connections:
        while connection.recv(4096):
            pass  # until the server closes it
        connection.close()


def test_uploads_are_private(server: Server) -> None:
    server.upload(coloured(77))
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    assert any(server.folder.rglob("*.png"))


def test_passwords_a_short_queue_and_an_orderly_end(checkpoint_file: Path, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("anna:geheim\n")
    users.chmod(0o600)
    flags = ["--auth-file", str(users), "--host", "0.0.0.0", "--queue-size", "1", "--max-batch-size", "1"]
    with running(tmp_path, "--weights", str(checkpoint_file), *flags) as server:
        assert server.http.post("/gradio_api/call/v2/caption", json={}).status_code == 401
        assert server.http.get("/gradio_api/info").status_code == 401
        wrong = server.http.post("/login", data={"username": "anna", "password": "wrong"})
        assert wrong.status_code == 400
        server.http.post("/login", data={"username": "anna", "password": "geheim"}).raise_for_status()
        record = server.upload(good_png())

        def ask(seed: int) -> Any:
            return server.call("caption", image=record, method="sample", max_length=50, seed=seed)

        assert ask(0).error is None
        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(ask, range(24)))
        assert any(answer.values for answer in answers)
        errors = {answer.error for answer in answers if answer.error}
        assert errors == {"The server is busy; try again in a moment."}
        assert ask(1).error is None
        assert server.stop() == 0
        assert not server.folder.exists()
        with pytest.raises(httpx.ConnectError):
            server.http.get("/health")
        assert "warning" not in server.log.read_text()
        assert "Traceback" not in server.log.read_text()


def test_a_taken_port_is_told_in_one_line_after_the_warning() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "--host", "0.0.0.0", "--port", str(port)], capture_output=True, text=True, check=False
        )
    warning, error = done.stderr.splitlines()
    assert done.returncode == 2
    assert warning.startswith("captioner: warning: everybody who reaches 0.0.0.0 can use the page")
    assert error.startswith(f"captioner: error: cannot listen on 0.0.0.0:{port}")
    assert "--port" in error


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_large_images_at_once_take_little_memory(server: Server) -> None:
    def megabytes(what: str) -> int:
        text = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(re.findall(rf"{what}:\s+(\d+) kB", text)[0]) // 1000

    large, before = flat_png(6000, 6000), megabytes("VmRSS")
    with ThreadPoolExecutor(4) as pool:
        sent = [
            pool.submit(server.http.post, "/api/caption", files={"image": ("x.png", large + bytes([number]))})
            for number in range(4)
        ]
        assert [answer.result().status_code for answer in sent] == [200] * 4
    assert megabytes("VmHWM") - before < 250  # decoded whole they take 144 each, and a copy


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_no_answer_waits_until_its_head_is_acknowledged(host: str) -> None:
    async def delays() -> bool:
        found: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            found.set_result(not connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = listen(ServingOptions(host=host, port=0))
        async with await asyncio.start_server(served, sock=listener):
            await asyncio.open_connection(*listener.getsockname()[:2])
            return await found

    with ThreadPoolExecutor(1) as pool:  # browser tests may have left a loop in this thread
        assert not pool.submit(asyncio.run, delays()).result(60)


def test_an_answer_that_is_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_READ", 0.2)
    left = threading.Event()

    async def large(_: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": bytes(20_000_000), "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    options = {"http": server_module._impatient(), "lifespan": "off"}
    with (
        served(large, **options) as address,
        socket.create_connection(("127.0.0.1", httpx.URL(address).port)) as idle,
    ):
        idle.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert left.wait(60)
