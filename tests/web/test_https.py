"""Served over https, with a certificate made for the test, and the tools for assistants beside the page."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")
pytest.importorskip("mcp.server.mcpserver", reason="needs mcp: pip install 'captioner[mcp]'")

from captioner.captioner import Captioner
from captioner.errors import OptionError
from captioner.web.options import check_certificate
from tests.web.hostile import good_png
from tests.web.serving import running

Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2", "-subj", "/CN=test"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(cert), "-keyout", str(key)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return cert, key


def test_page_and_tools_over_https(
    certificate: Pair, checkpoint_file: Path, captioner: Captioner, image: Path, tmp_path: Path
) -> None:
    cert, key = certificate
    flags = ["--ssl-certfile", str(cert), "--ssl-keyfile", str(key), "--mcp"]
    trusting = ssl.create_default_context(cafile=str(cert))
    with running(tmp_path, "--weights", str(checkpoint_file), *flags, verify=trusting) as server:
        address = str(server.http.base_url).rstrip("/")
        assert address.startswith("https://127.0.0.1:")
        assert f"{address}, and MCP tools at {address}/mcp" in server.log.read_text()
        answer = server.call("caption", image=server.upload(image.read_bytes()))
        assert answer.values is not None, answer.error
        assert answer.values[0] == captioner.caption([image])[0][0].text
        accepted = {"accept": "application/json, text/event-stream"}
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        tools = server.http.post("/mcp", json=asked, headers=accepted).raise_for_status().json()
        assert {tool["name"] for tool in tools["result"]["tools"]} == {"caption", "caption_batch", "score"}
        assert server.http.get("/config").json()["root"] == address
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.get(f"{address}/health")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{address.replace('https', 'http')}/health")


def test_what_is_no_certificate_is_told(certificate: Pair, tmp_path: Path) -> None:
    cert, key = map(str, certificate)
    check_certificate(cert, key)
    other = tmp_path / "other.pem"
    other.write_bytes(good_png())
    for pair in ((key, cert), (cert, cert), (cert, str(other)), (str(other), key)):
        with pytest.raises(OptionError, match="not a certificate with its unlocked private key"):
            check_certificate(*pair)
    with pytest.raises(OptionError, match=r"absent.pem: cannot be read \(No such file or directory\)"):
        check_certificate(cert, str(tmp_path / "absent.pem"))
    locked = tmp_path / "locked.pem"
    lock = ["openssl", "rsa", "-aes256", "-passout", "pass:secret", "-in", key, "-out", str(locked)]
    subprocess.run(lock, check=True, capture_output=True)
    with pytest.raises(OptionError, match="unlocked"):
        check_certificate(cert, str(locked))
