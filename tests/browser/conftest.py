"""A real browser on a running page. Without playwright or Chromium these tests are skipped, with a reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from captioner.web.service import Service
from tests.web.serving import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"  # build/ is not committed
SIZES = {"desktop": (1280, 900, 1), "phone": (390, 844, 1), "zoomed": (640, 450, 2)}
"""Width and height in the page's pixels, and screen pixels in one of these: a zoom of 200 % halves the page."""
PATIENCE = 100_000  # milliseconds; a busy machine may be slow, a broken page never gets there
_QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'captioner[dev]'")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    api.expect.set_options(timeout=PATIENCE)
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=_QUIET)
        yield running
        running.close()


@pytest.fixture(scope="session")
def axe() -> Path:
    """The script of axe-core, which finds what keeps people from using a page."""
    named = os.environ.get("CAPTIONER_AXE")
    path = Path(named) if named else ROOT / "node_modules" / "axe-core" / "axe.min.js"
    if not path.is_file():
        pytest.skip("needs axe-core: npm install --no-save axe-core@4.14.1, or CAPTIONER_AXE=.../axe.min.js")
    return path


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., str]]:
    """Serves a page over a service, as ``captioner serve`` does; gives its address."""
    pytest.importorskip("gradio", reason="the page needs the extra 'app'")
    from captioner.web.options import ServingOptions
    from captioner.web.page import build_app
    from captioner.web.server import private_uploads

    with private_uploads(), ExitStack() as servers:

        def open_page(service: Service, **options: Any) -> str:
            app = build_app(service, ServingOptions(max_upload_mb=5, **options))
            return servers.enter_context(served(app)) + "/"

        yield open_page


def _serve_loaded(serve: Callable[[Service], str], checkpoint: Path) -> str:
    service = Service(checkpoint, device="cpu")
    service.models.start()
    service.models.load()
    return serve(service)


@pytest.fixture(scope="session")
def address(serve: Callable[[Service], str], checkpoint_file: Path) -> str:
    """A page over the small model."""
    return _serve_loaded(serve, checkpoint_file)


@pytest.fixture(scope="session")
def attentive_address(serve: Callable[[Service], str], attentive_file: Path) -> str:
    """A page over a small model with attention."""
    return _serve_loaded(serve, attentive_file)


@pytest.fixture
def visit(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[..., Page]]:
    """Opens an address in a fresh browser profile; at the end nothing may have left this machine."""
    contexts: list[BrowserContext] = []
    requests: list[str] = []
    failures: list[str] = []

    def open_address(
        address: str, size: str = "desktop", scheme: str = "light", script: str = "", **options: Any
    ) -> Page:
        width, height, scale = SIZES[size]
        looks: Any = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
        context = browser.new_context(device_scale_factor=scale, **looks, **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        context.on("request", lambda sent: requests.append(sent.url))
        page = context.new_page()
        if script:
            page.add_init_script(script)  # runs before those of the page
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(address)
        if options.get("java_script_enabled", True):
            page.wait_for_selector("#answer")
        return page

    yield open_address
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for number, context in enumerate(contexts):
        name = f"{request.node.name}-{number}.png".replace("/", "-")
        context.pages[0].screenshot(path=SCREENSHOTS / name, full_page=True)
        context.close()
    assert requests
    assert {urlsplit(url).hostname for url in requests if urlsplit(url).scheme not in ("data", "blob")} == {"127.0.0.1"}
    assert failures == []
