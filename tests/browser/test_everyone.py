"""The page for those who use a keyboard, a screen reader, a phone or a dark theme."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.acting import caption, click_sample, expect_texts, open_section, open_tab
from tests.browser.conftest import SCREENSHOTS

if TYPE_CHECKING:
    from playwright.sync_api import Page

Visit = Callable[..., "Page"]

_FOCUS = """
() => {
    const element = document.activeElement;
    const label = element.labels?.[0]?.textContent ?? '';
    const image = element.querySelector?.('img')?.alt ?? '';
    const style = getComputedStyle(element);
    return [(element.ariaLabel || element.innerText || image || label || element.placeholder || '').trim(),
            style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];
}
"""


def violations(page: Page, axe: Path) -> list[str]:
    """What axe-core finds of serious or critical impact."""
    if not page.evaluate("typeof axe === 'object'"):
        page.add_script_tag(path=axe)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] }).then((r) => r.violations)")
    return [
        f"{violation['id']}: {violation['nodes'][0]['html'][:200]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_nothing_keeps_anyone_out(
    visit: Visit, address: str, axe: Path, images: list[Path], size: str, scheme: str
) -> None:
    page = visit(address, size, scheme)
    page.wait_for_selector(".status.ready")
    found: dict[str, list[str]] = {}

    def look(state: str) -> None:
        found[state] = violations(page, axe)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{state}-{size}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), state

    look("empty")
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    click_sample(page, "dogs")
    caption(page)
    open_section(page, "How it decided")
    open_section(page, "Settings")
    page.get_by_text("Varied (sampling)").click()
    page.get_by_text("The 5 captions that were drawn").wait_for()
    open_section(page, "Compare with a sentence")
    page.get_by_label("Your sentence about the image").fill("a large dog runs in the grass")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.wait_for_selector(".comparison")
    look("one-image")
    open_tab(page, "Many images")
    page.locator("#many input[type=file]").first.set_input_files([*images[:3], Path(__file__)])
    page.locator("#many .file-preview").wait_for()
    page.locator("#start").click()
    page.locator(".progress .verdict").wait_for()
    look("many-images")
    open_tab(page, "About")
    page.wait_for_selector("#card h2")
    look("about")
    assert found == {state: [] for state in found}


def test_the_keyboard_is_enough(visit: Visit, address: str) -> None:
    page = visit(address)
    page.wait_for_selector(".status.ready")
    names: list[str] = []
    for _ in range(20):
        page.keyboard.press("Tab")
        name, outlined = page.evaluate(_FOCUS)
        assert outlined, f"nothing shows that {name!r} has the focus"
        names.append(name)
    order = [
        "One image",
        "Drop an image here",
        "Capture from camera",
        "Sample: an astronaut",
        "Settings",
    ]
    places = [next(place for place, name in enumerate(names) if name.startswith(start)) for start in order]
    assert places == sorted(places)

    page.locator('[data-sample="astronaut"]').focus()
    page.keyboard.press("Enter")
    expect_texts(page, "#announcer", f"Caption: {caption(page)}")
    page.get_by_role("button", name="How it decided").focus()
    page.keyboard.press("Enter")
    page.locator(".decisions table").wait_for()
    page.get_by_role("tab", name="One image").focus()
    page.keyboard.press("ArrowRight")
    page.locator("#start").wait_for()
    page.keyboard.press("ArrowRight")
    page.locator("#card h2").first.wait_for()
    page.keyboard.press("ArrowRight")
    page.locator(".answer").wait_for()


def test_it_has_a_language_a_title_and_one_main_heading(visit: Visit, address: str) -> None:
    page = visit(address)
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.title() == "captioner"
    assert page.locator("h1").count() == 1
    assert page.locator("#announcer").get_attribute("aria-live") == "polite"


def test_motion_can_be_switched_off(visit: Visit, address: str) -> None:
    page = visit(address, reduced_motion="reduce")
    moving = "[...document.querySelectorAll('*')].some((e) => getComputedStyle(e).animationName !== 'none')"
    page.wait_for_selector(".status.ready")
    assert not page.evaluate(moving)
