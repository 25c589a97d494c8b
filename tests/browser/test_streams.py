"""How the page asks for its answers, on which the server relies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from tests.browser.acting import caption, choose

if TYPE_CHECKING:
    from playwright.sync_api import Page

Visit = Callable[..., "Page"]


def test_requests_name_the_session_of_their_stream(visit: Visit, address: str, photos: list[Path]) -> None:
    page = visit(address)
    streams: set[str] = set()
    asked: list[str] = []

    def note(url: str, body: str | None) -> None:
        where = urlsplit(url)
        if where.path.endswith("/queue/data"):
            streams.update(parse_qs(where.query)["session_hash"])
        elif where.path.endswith("/queue/join"):
            asked.append(body or "")

    page.on("request", lambda request: note(request.url, request.post_data))
    page.reload()
    choose(page, photos[0])
    assert caption(page)
    assert len(asked) >= 2  # when the page was loaded, and for the caption
    assert all(any(f'"session_hash":"{session}"' in body for session in streams) for body in asked)
