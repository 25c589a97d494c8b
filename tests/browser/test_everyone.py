"""The page for those who use a keyboard, a screen reader, a phone or a dark theme."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.acting import caption, choose, click_sample, expect_texts, open_section, open_tab
from tests.browser.conftest import SCREENSHOTS, SIZES

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


# Name, side in pixels and contrast of the icons below the image.
_ICONS = """
() => [...document.querySelectorAll('#picture .source-selection button')].map((button) => {
    const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
    let ground = button;
    while (/, 0\\)|transparent/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
    const icon = button.querySelector('svg'), { width, height } = icon.getBoundingClientRect();
    const [dark, bright] = [getComputedStyle(icon).color, getComputedStyle(ground).backgroundColor]
        .map(light).sort((one, other) => one - other);
    return [button.ariaLabel, Math.min(width, height), (bright + 0.05) / (dark + 0.05)];
})
"""
# Tables with a column whose head says nothing, or does not stand above it.
_UNNAMED_COLUMNS = """
[...document.querySelectorAll('table')].filter((table) => {
    const named = [...table.querySelectorAll('thead th')].filter((head) => head.textContent.trim());
    const left = (cell) => Math.round(cell.getBoundingClientRect().left);
    return [...table.rows].some(({ cells }) => cells.length !== named.length
        || [...cells].some((cell, place) => left(cell) !== left(named[place])));
}).map((table) => table.outerHTML.slice(0, 300))
"""
# What is wider than the window: the page, or what is cut off in it; but not what scrolls by itself.
_SIDEWAYS = """
[document.documentElement, ...document.querySelectorAll('body *')].filter((element) => {
    if (element === document.documentElement) return element.scrollWidth > window.innerWidth;
    const box = element.getBoundingClientRect();
    const apart = element.closest('#card table, #card pre, .table, .unseen, svg');
    return box.width && box.height && !apart && element.checkVisibility({ visibilityProperty: true })
        && (box.right > window.innerWidth + 1 || box.left < -1);
}).map((element) => element.outerHTML.slice(0, 200))
"""
_WIDTHS = (320, 480, 768, 1024, 1920)


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


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark"), ("zoomed", "light")])
def test_nothing_keeps_anyone_out(
    visit: Visit, address: str, axe: Path, images: list[Path], tmp_path: Path, size: str, scheme: str
) -> None:
    page = visit(address, size, scheme)
    page.wait_for_selector(".status.ready")
    found: dict[str, list[str]] = {}

    def look(state: str, page: Page = page) -> None:
        found[state] = violations(page, axe)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{state}-{size}-{scheme}.png", full_page=True)
        assert page.evaluate(_UNNAMED_COLUMNS) == [], state
        width, height, _ = SIZES[size]
        for narrow_or_wide in (*(_WIDTHS if size == "desktop" else ()), width):
            page.set_viewport_size({"width": narrow_or_wide, "height": height})
            assert page.evaluate(_SIDEWAYS) == [], (state, narrow_or_wide)
            assert page.get_by_role("tab").count() == (0 if state == "api" else 3)

    look("empty")
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    icons = page.evaluate(_ICONS)
    assert [name for name, *_ in icons] == ["Upload file", "Capture from camera", "Paste from clipboard"]
    assert [name for name, side, contrast in icons if side < 24 or contrast < 3] == []
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").wait_for()
    look("camera")
    page.get_by_label("Upload file").click()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    choose(page, broken)
    page.wait_for_selector("#answer .notice.error")
    look("error")
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
    page.reload()
    page.locator("#gallery textarea").first.wait_for()
    look("kept")
    open_tab(page, "About")
    page.wait_for_selector("#card h2")
    look("about")
    with page.expect_popup() as examples:
        page.get_by_role("link", name="Use via API").click()
    examples.value.get_by_role("heading", name="/api/score").wait_for()
    look("api", examples.value)
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
    moves = """
    () => {
        document.querySelector('.status').classList.add('loading');
        document.querySelector('#answer .welcome').outerHTML = '<div class="notice busy"><p>Looking</p></div>';
        const styles = [...document.querySelectorAll('.status, .notice p, .samples img')].flatMap((element) =>
            ['', '::before'].map((part) => getComputedStyle(element, part)));
        return styles.filter((style) => style.animationName !== 'none' || parseFloat(style.transitionDuration)).length;
    }"""
    for motion, some in (("no-preference", True), ("reduce", False)):
        page = visit(address, reduced_motion=motion)
        page.wait_for_selector(".status.ready")
        assert bool(page.evaluate(moves)) == some
