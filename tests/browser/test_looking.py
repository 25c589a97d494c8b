"""The heat map: where a model with attention looked at each word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from captioner.captioner import Captioner
from tests.browser.acting import choose, expect_caption, open_section
from tests.browser.conftest import SIZES
from tests.browser.test_everyone import violations

if TYPE_CHECKING:
    from playwright.sync_api import Page

Visit = Callable[..., "Page"]

_SHADE = "document.querySelector('.look .shade')"


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_the_word_that_is_pointed_at_or_chosen_shades_the_image(
    visit: Visit, attentive_address: str, attentive_file: Path, axe: Path, images: list[Path], size: str
) -> None:
    ((best, *_),) = Captioner.load(attentive_file, device="cpu").caption([images[0]])
    page = visit(attentive_address, size)
    choose(page, images[0])
    expect_caption(page, best.text)
    open_section(page, "How it decided")
    words = page.locator(".look-at")
    words.first.wait_for()
    assert words.all_inner_texts() == list(best.words)
    shades = [words.nth(place).get_attribute("data-shade") for place in range(len(best.words))]

    def shaded_by(place: int) -> None:
        page.wait_for_function(f"(source) => !{_SHADE}.hidden && {_SHADE}.src === source", arg=shades[place])

    assert page.evaluate(f"{_SHADE}.hidden")
    words.nth(1).hover()
    shaded_by(1)
    page.locator(".masthead").hover()
    page.wait_for_function(f"{_SHADE}.hidden")
    words.nth(2).focus()  # by keyboard, as with the mouse
    shaded_by(2)
    words.nth(0).click()
    shaded_by(0)
    assert words.nth(0).get_attribute("aria-pressed") == "true"
    words.nth(1).hover()
    shaded_by(1)
    page.locator(".masthead").hover()
    shaded_by(0)  # the one that was chosen stays

    # Wherever the word is, the map is in view, and not over the word.
    page.set_viewport_size({"width": 320 if size == "phone" else SIZES[size][0], "height": 400})
    frame, last = page.locator(".look .frame"), words.nth(len(best.words) - 1)
    last.hover()
    shaded_by(len(best.words) - 1)
    assert page.evaluate("window.scrollY") > 400
    for act in (last.hover, *[lambda: page.keyboard.press("Shift+Tab")] * 2):
        last.focus() if act == last.hover else act()
        place, word = frame.bounding_box(), page.locator(".look-at:focus").bounding_box()
        assert place is not None
        assert word is not None
        assert place["y"] >= 0
        assert place["width"] == pytest.approx(place["height"])  # as the model sees it
        assert place["y"] + place["height"] <= word["y"]
        assert word["y"] + word["height"] <= 400
    assert violations(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
