"""The page behind a proxy that offers it under a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from captioner.captioner import Captioner
from captioner.web.service import Service
from tests.browser.acting import choose, expect_caption
from tests.web.proxy import behind_proxy

if TYPE_CHECKING:
    from playwright.sync_api import Page

Visit = Callable[..., "Page"]


def test_everything_is_asked_for_under_the_path(
    visit: Visit,
    serve: Callable[..., str],
    checkpoint_file: Path,
    captioner: Captioner,
    images: list[Path],
) -> None:
    from gradio_client import Client, handle_file

    service = Service(checkpoint_file, device="cpu")
    service.models.start()
    expected = captioner.caption([images[0]])[0][0].text
    with behind_proxy(serve(service, root_path="/captioner"), "/captioner") as address:
        page = visit(address)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        choose(page, images[0])
        expect_caption(page, expected)
        paths = {urlsplit(url).path for url in asked if url.startswith("http")}
        assert any("/upload" in path for path in paths)
        assert {path for path in paths if not path.startswith("/captioner/")} == set()
        shown = page.locator("#picture img").get_attribute("src") or ""
        assert urlsplit(shown).path.startswith("/captioner/")

        client = Client(address, verbose=False)
        text, _ = client.predict(handle_file(images[0]), api_name="/caption")
        assert text == expected
