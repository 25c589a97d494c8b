"""A real server in a process of its own, and what a program without Gradio's client says to it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

COMMAND = [sys.executable, "-m", "captioner", "serve"]


@dataclass(frozen=True)
class Answer:
    """How an endpoint answered: with values or with an error."""

    values: list[Any] | None
    error: str | None


@dataclass
class Server:
    """A running server.

    Attributes:
        process: its process.
        http: speaks to it.
        log: what it has printed.
        folder: where its uploads lie.
    """

    process: subprocess.Popen[bytes]
    http: httpx.Client
    log: Path
    folder: Path

    def upload(self, data: bytes, name: str = "picture.png") -> dict[str, Any]:
        """Send a file; returns the record by which endpoints know it."""
        answer = self.http.post("/gradio_api/upload", files={"files": (name, data)})
        answer.raise_for_status()
        return record(answer.json()[0], orig_name=name)

    def call(self, endpoint: str, **parameters: Any) -> Answer:
        """Call an endpoint with parameters by name."""
        started = self.http.post(f"/gradio_api/call/v2/{endpoint}", json=parameters)
        return self._answer(endpoint, started)

    def call_with(self, endpoint: str, *parameters: Any) -> Answer:
        """Call an endpoint with all its parameters in their order."""
        started = self.http.post(f"/gradio_api/call/{endpoint}", json={"data": parameters})
        return self._answer(endpoint, started)

    def _answer(self, endpoint: str, started: httpx.Response) -> Answer:
        if started.status_code == 503:
            return Answer(None, started.json()["detail"])
        started.raise_for_status()
        text = self.http.get(f"/gradio_api/call/{endpoint}/{started.json()['event_id']}").text
        event, data = re.findall(r"^event: (\w+)\ndata: (.*)$", text, re.MULTILINE)[-1]
        found = json.loads(data)
        return Answer(found, None) if event == "complete" else Answer(None, found["error"])

    def stop(self) -> int:
        """End it as a service manager does."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def record(path: object, **more: Any) -> dict[str, Any]:
    """What Gradio calls a file."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


@contextmanager
def served(app: Any, **options: Any) -> Iterator[str]:
    """Serve an application from this process, with options of uvicorn; gives its address."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, **options))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def running(folder: Path, *flags: str, verify: ssl.SSLContext | bool = True) -> Iterator[Server]:
    """A server on a free port, with its model loaded; temporary files go to ``folder``."""
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*COMMAND, "--port", "0", *flags], stderr=file, env={**_environment(), "TMPDIR": str(folder)}
        )
    try:
        address = _wait(lambda: re.search(r"https?://\S+:\d+", log.read_text()), process)
        uploads = next(folder.glob("captioner-*"))
        here = address[0].replace("0.0.0.0", "127.0.0.1")
        # Connections are not kept: a slow client may find that the server has just closed an idle one.
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=here, timeout=120, verify=verify, limits=limits) as http:
            _wait(lambda: http.get("/health").status_code == 200, process)
            yield Server(process, http, log, uploads)
    finally:
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("GRADIO_")}


def _wait(condition: Any, process: subprocess.Popen[bytes]) -> Any:
    # For as long as pytest lets a test run: a busy machine may need minutes to import all.
    while process.poll() is None:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"the server ended with exit code {process.poll()}")
