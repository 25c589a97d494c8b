"""What visitors see when more of them come than may wait."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.captioner import Captioner
from tests.browser.acting import choose, expect_caption
from tests.web.waiting import Narrow

if TYPE_CHECKING:
    from playwright.sync_api import Page

Visit = Callable[..., "Page"]


def test_one_too_many_is_told_so_and_may_try_again(
    visit: Visit,
    serve: Callable[..., str],
    checkpoint_file: Path,
    captioner: Captioner,
    images: list[Path],
) -> None:
    narrow = Narrow(checkpoint_file)
    address = serve(narrow.service, queue_size=1)
    pages = [visit(address) for _ in range(3)]
    choose(pages[0], images[0])
    narrow.wait_until_busy(waiting=0)
    choose(pages[1], images[1])
    narrow.wait_until_busy(waiting=1)
    choose(pages[2], images[2])
    pages[2].locator("#answer .notice.error").get_by_text("busy").wait_for()
    narrow.go_on()
    texts = [captions[0].text for captions in captioner.caption(images[:3])]
    for page, text in zip(pages[:2], texts[:2], strict=True):
        expect_caption(page, text)
    choose(pages[2], images[2])
    expect_caption(pages[2], texts[2])
