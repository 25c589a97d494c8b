from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from captioner.captioner import Captioner
from captioner.web.service import Service
from tests.browser.acting import choose, click_sample, expect_caption, message
from tests.browser.conftest import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Page

Visit = Callable[..., "Page"]


def test_the_page_is_there_before_the_model(
    visit: Visit,
    serve: Callable[[Service], str],
    checkpoint_file: Path,
    captioner: Captioner,
    images: list[Path],
) -> None:
    service = Service(checkpoint_file, device="cpu")
    page = visit(serve(service))
    page.wait_for_selector(".status.loading")
    choose(page, images[0])
    page.locator("#answer").get_by_text("The model is still loading. The caption").wait_for()
    service.models.start()
    expect_caption(page, captioner.caption([images[0]])[0][0].text)
    page.wait_for_selector(".status.ready")
    assert page.locator("#settings").is_visible()


def test_weights_that_cannot_be_loaded_are_told(
    visit: Visit, serve: Callable[[Service], str], tmp_path: Path, images: list[Path]
) -> None:
    service = Service(tmp_path / "absent.safetensors")
    service.models.start()
    page = visit(serve(service))
    page.wait_for_selector(".status.failed")
    choose(page, images[0])
    assert "The model cannot be loaded" in message(page)
    assert str(tmp_path) not in page.content()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[str]:
    """``python app.py`` as a person starts it, from another folder, with the shipped weights."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{port}/"
        try:
            _wait(address, process)
            yield address
        finally:
            process.terminate()


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        assert process.poll() is None, "app.py ended"
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail("app.py opens no page")


@pytest.mark.slow
def test_a_sample_is_captioned_with_the_shipped_weights(visit: Visit, app: str, images: list[Path]) -> None:
    page = visit(app)
    page.wait_for_selector(".status.ready")
    click_sample(page, "dogs")
    dogs = next(image for image in images if image.stem == "dogs")
    shipped = Captioner.load(device="cpu")
    expect_caption(page, shipped.caption([dogs])[0][0].text)
    page.get_by_role("tab", name="About").click()
    page.get_by_text(shipped.digest).wait_for()
    page.get_by_role("heading", name="Failings").wait_for()
