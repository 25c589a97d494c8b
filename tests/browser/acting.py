"""What visitors do, in one line each."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.conftest import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Puts a file into a clipboard or drag event, which scripts may make and drivers may not.
_TRANSFER = """
(element, [kind, name, data]) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type: 'image/jpeg' }));
    const options = { bubbles: true, cancelable: true };
    const event = kind === 'paste'
        ? new ClipboardEvent('paste', { ...options, clipboardData: transfer })
        : new DragEvent(kind, { ...options, dataTransfer: transfer });
    element.dispatchEvent(event);
}
"""


def choose(page: Page, path: Path) -> None:
    """Choose a file in the file dialogue."""
    page.locator("#picture input[type=file]").set_input_files(path)


def paste(page: Page, path: Path) -> None:
    """Paste an image anywhere on the page."""
    _hand_over(page, "body", "paste", path)


def drop(page: Page, place: str, path: Path) -> None:
    """Drop a file onto an element."""
    _hand_over(page, place, "drop", path)


def _hand_over(page: Page, place: str, kind: str, path: Path) -> None:
    data = base64.b64encode(path.read_bytes()).decode()
    page.locator(place).evaluate(_TRANSFER, [kind, path.name, data])


def click_sample(page: Page, name: str) -> None:
    page.locator(f'[data-sample="{name}"]').click()


def caption(page: Page) -> str:
    """The caption, as soon as there is one."""
    return page.locator(".answer .caption").inner_text()


def expect_caption(page: Page, text: str) -> None:
    """Wait for this caption, whatever is shown before it."""
    expect_texts(page, ".answer .caption", text)


def expect_texts(page: Page, place: str, *texts: str) -> None:
    """Wait until the elements hold these texts, each element one."""
    from playwright.sync_api import expect

    expect(page.locator(place)).to_have_text([*texts], timeout=PATIENCE)


def expect_values(page: Page, place: str, values: list[str]) -> None:
    """Wait until the fields hold these values."""
    from playwright.sync_api import expect

    fields = page.locator(place)
    expect(fields).to_have_count(len(values), timeout=PATIENCE)
    for number, value in enumerate(values):
        expect(fields.nth(number)).to_have_value(value, timeout=PATIENCE)


def open_section(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).click()


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def message(page: Page, place: str = "#answer") -> str:
    """The error message that is shown in the place of an answer."""
    return page.locator(f"{place} .notice.error").inner_text()
