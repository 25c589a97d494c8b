"""Where the page's parts are: tabs in the address, examples for programs, and a sentence without JavaScript."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from captioner.captioner import Captioner
from tests.browser.acting import open_tab

if TYPE_CHECKING:
    from playwright.sync_api import Page

Visit = Callable[..., "Page"]

# The page learns of its tabs two seconds late, as on a busy machine.
_LATE = """
const Observer = MutationObserver;
window.MutationObserver = class extends Observer {
    constructor(call) { super((...seen) => setTimeout(call, 2000, ...seen)); }
};
"""
_PRINT_JSON = "import builtins, json; print = lambda answer: builtins.print(json.dumps(answer))"


def test_tabs_are_in_the_address_and_in_the_title(visit: Visit, address: str) -> None:
    from playwright.sync_api import expect

    page = visit(address)

    def expect_tab(name: str, title: str, end: str) -> None:
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        expect(page).to_have_title(title)
        expect(page).to_have_url(address + end)

    one = ("One image", "captioner", "")
    many = ("Many images", "Many images - captioner", "#many")
    about = ("About", "About - captioner", "#about")
    expect_tab(*one)
    open_tab(page, "Many images")
    expect_tab(*many)
    open_tab(page, "About")
    expect_tab(*about)
    for tab in (many, one):
        page.go_back()
        expect_tab(*tab)
    page.go_forward()
    expect_tab(*many)
    page.evaluate("location.hash = '#about'")  # as a link does
    expect_tab(*about)
    page.reload()
    expect_tab(*about)
    page.locator("#card h2").first.wait_for()
    open_tab(page, "One image")
    expect_tab(*one)
    page.go_back()
    expect_tab(*about)


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_a_visitor_who_is_faster_than_the_page_stays_where_they_went(visit: Visit, address: str, by: str) -> None:
    page = visit(address, script=_LATE)
    if by == "mouse":
        open_tab(page, "Many images")
    else:
        page.get_by_role("tab", name="One image").press("ArrowRight")
    page.wait_for_function("document.title === 'Many images - captioner'")
    assert page.url == f"{address}#many"


def test_without_javascript_one_sentence_says_so(visit: Visit, address: str) -> None:
    page = visit(address, scheme="dark", java_script_enabled=False)
    said = page.locator("noscript p")
    assert said.is_visible()
    assert page.locator("body").inner_text().strip() == said.inner_text().strip()
    assert "needs JavaScript" in said.inner_text()
    assert said.inner_text().count(".") == 1
    size, colour, ground = page.evaluate(
        """() => {
            const { fontSize, color } = getComputedStyle(document.querySelector('noscript p'));
            return [fontSize, color, getComputedStyle(document.body).backgroundColor];
        }"""
    )
    assert float(size.removesuffix("px")) >= 16
    assert (colour, ground) == ("rgb(244, 244, 245)", "rgb(15, 15, 17)")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_examples_for_programs_can_be_copied_and_run(
    visit: Visit, address: str, captioner: Captioner, images: list[Path], tmp_path: Path
) -> None:
    for name, image in zip(("photo.jpg", "a.jpg", "b.jpg"), images, strict=False):
        shutil.copy(image, tmp_path / name)
    page = visit(address, permissions=["clipboard-read", "clipboard-write"])
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Use via API").click()
    examples = opened.value
    examples.get_by_role("heading", name="/api/score").wait_for()
    assert examples.locator("h2").all_inner_texts() == [
        f"POST /api/{name}" for name in ("caption", "caption_batch", "score")
    ]
    copied: dict[str, list[str]] = {}
    for language in ("curl", "Python"):
        for button in examples.get_by_role("button", name=f"Copy {language}").all():
            button.click()
            copied.setdefault(language, []).append(examples.evaluate("navigator.clipboard.readText()"))
        assert examples.get_by_role("status").filter(has_text="Copied").count() >= 1
        assert len(copied[language]) == 3
        assert all(f"{address}api/" in text for text in copied[language])
    first, *others = [captions[0].text for captions in captioner.caption(images[:3])]
    lines = "; echo; ".join(f"{line} -s" for line in copied["curl"])
    script = "\n".join([_PRINT_JSON, *copied["Python"]])
    for command in (["sh", "-c", lines], [sys.executable, "-c", script]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        one, several, scores = map(json.loads, done.stdout.splitlines())
        assert one["caption"] == first
        assert [record["caption"] for record in several] == others
        assert [each["caption"] for each in scores["captions"]] == ["a dog"]
