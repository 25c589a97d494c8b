from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")

from captioner.captioner import Captioner
from captioner.web.settings import Settings
from tests.browser.acting import (
    caption,
    choose,
    click_sample,
    drop,
    expect_caption,
    expect_texts,
    message,
    open_section,
    paste,
)
from tests.browser.conftest import PATIENCE
from tests.web.hostile import HOSTILE, good_png

if TYPE_CHECKING:
    from playwright.sync_api import Page

Visit = Callable[..., "Page"]


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_an_image_gets_a_caption_with_all_that_belongs_to_it(
    visit: Visit, address: str, captioner: Captioner, images: list[Path], size: str
) -> None:
    page = visit(address, size, permissions=["clipboard-read", "clipboard-write"])
    choose(page, images[1])  # has an EXIF orientation
    options = replace(captioner.options, num_captions=captioner.options.beam_size)
    (expected,) = captioner.caption([images[1]], options)
    expect_caption(page, expected[0].text)
    expect_texts(page, ".captions .sentence", *(caption.text for caption in expected))
    assert page.locator(".captions .bar").count() == 3
    assert re.fullmatch(r"\d+\.\d\d s to look and write", page.locator(".took").inner_text())

    page.get_by_role("button", name="Copy caption").click()
    page.wait_for_function("document.getElementById('announcer').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == expected[0].text

    open_section(page, "How it decided")
    expect_texts(page, ".decisions tbody th", *expected[0].words, "end of sentence")
    assert page.locator(".decisions tbody tr").first.locator(".runners-up li").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_pasting_dropping_and_the_camera_work(
    visit: Visit, address: str, captioner: Captioner, images: list[Path], size: str
) -> None:
    texts = [captions[0].text for captions in captioner.caption(images[:3])]
    page = visit(address, size, permissions=["camera"])
    drop(page, "#picture button.upload-container", images[0])
    expect_caption(page, texts[0])
    paste(page, images[1])
    expect_caption(page, texts[1])
    drop(page, "#picture img", images[2])
    expect_caption(page, texts[2])
    page.get_by_label("Remove Image").click()
    page.wait_for_selector(".welcome")
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_label("capture photo").click()
    assert caption(page).endswith(".")


def test_the_clipboard_button_takes_an_image(visit: Visit, address: str) -> None:
    page = visit(address, permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async () => {
            const canvas = new OffscreenCanvas(60, 40);
            canvas.getContext('2d').fillRect(9, 9, 20, 20);
            const png = await canvas.convertToBlob({ type: 'image/png' });
            await navigator.clipboard.write([new ClipboardItem({ 'image/png': png })]);
        }"""
    )
    page.get_by_label("Paste from clipboard").click()
    assert caption(page).endswith(".")


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_samples_can_be_clicked_and_settings_changed_without_another_upload(
    visit: Visit, address: str, captioner: Captioner, images: list[Path], size: str
) -> None:
    page = visit(address, size)
    uploads: list[str] = []
    page.on("request", lambda sent: uploads.append(sent.url) if "/upload" in sent.url else None)
    dogs = next(image for image in images if image.stem == "dogs")

    def texts(**choices: Any) -> list[str]:
        (captions,) = captioner.caption([dogs], Settings(**choices).options(captioner.options))
        return [caption.text for caption in captions]

    click_sample(page, "dogs")
    expect_caption(page, texts()[0])
    assert page.locator("#picture img").get_attribute("alt")

    open_section(page, "Settings")
    page.get_by_text("Word by word (greedy)").click()
    expect_texts(page, ".captions .sentence", *texts(method="greedy"))
    expect_texts(page, ".answer .caption", *texts(method="greedy"))
    page.get_by_text("Varied (sampling)").click()
    expect_texts(page, ".captions .sentence", *texts(method="sample"))
    page.get_by_label("Seed").fill("7")
    assert texts(method="sample", seed=7) != texts(method="sample")
    expect_texts(page, ".captions .sentence", *texts(method="sample", seed=7))
    length = page.locator("#settings").get_by_label("number input for Longest caption")
    length.fill("2")
    length.press("Enter")
    expect_texts(page, ".captions .sentence", *texts(method="sample", seed=7, max_length=2))
    assert uploads == []


def test_other_weights_can_be_chosen(visit: Visit, address: str, captioner: Captioner, images: list[Path]) -> None:
    page = visit(address)
    choose(page, images[2])
    expect_caption(page, captioner.caption([images[2]])[0][0].text)
    open_section(page, "Settings")
    page.get_by_label("Weights").click()
    page.get_by_role("option", name="captioner").click()
    expect_caption(page, Captioner.load(device="cpu").caption([images[2]])[0][0].text)


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_a_sentence_of_ones_own_is_compared(visit: Visit, address: str, size: str) -> None:
    page = visit(address, size)
    click_sample(page, "tulips")
    caption(page)
    open_section(page, "Compare with a sentence")
    field = page.get_by_label("Your sentence about the image")
    field.fill("a large dog runs in the grass")
    field.press("Enter")
    page.wait_for_selector(".comparison")
    assert page.locator(".scored").count() == 2
    assert page.locator(".scored").first.locator(".word").count() == 7
    assert page.locator(".comparison .figures th").all_inner_texts()[:4] == [
        "Sentence",
        "Chance, 1\xa0in",
        "log\xa0P",
        "Perplexity",
    ]
    expect_texts(page, "#announcer", page.locator(".verdict").inner_text())

    for text, told in (
        ("a dog with <img src=x onerror=alert(1)>", "'img'"),
        ("dog " * 10_000, "at most 100 words"),
    ):
        field.fill(text)
        page.get_by_role("button", name="Compare", exact=True).click()
        page.wait_for_function(
            "(told) => document.querySelector('#comparison .notice')?.textContent.includes(told)", arg=told
        )
    assert page.locator("#comparison img").count() == 0


def test_what_belongs_to_a_caption_is_there_while_there_is_one(
    visit: Visit, address: str, images: list[Path], tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    page = visit(address)
    sections = [page.get_by_role("button", name=name) for name in ("How it decided", "Compare with a sentence")]

    def expect_sections(visible: bool) -> None:
        for section in sections:
            expect(section).to_be_visible(visible=visible, timeout=PATIENCE)

    expect_sections(False)
    choose(page, images[0])
    expect_sections(True)
    choose(page, broken)
    expect_sections(False)
    choose(page, images[1])
    expect_sections(True)
    page.get_by_label("Remove Image").click()
    expect_sections(False)


def test_hostile_images_get_a_message_and_the_next_visitor_a_caption(
    visit: Visit, address: str, tmp_path: Path
) -> None:
    good = tmp_path / "good.png"
    good.write_bytes(good_png())
    page = visit(address, "phone")
    for name, (content, told) in HOSTILE.items():
        path = tmp_path / f"<i>{name}"
        path.write_bytes(content())
        choose(page, path)
        page.wait_for_function(
            "(parts) => parts.every((part) =>"
            " document.querySelector('#answer .notice.error')?.textContent.includes(part))",
            arg=[name, told],
        )
        assert "/" not in message(page)
        assert "Traceback" not in message(page)
    assert caption(_chosen(visit(address), good)).endswith(".")
    assert caption(_chosen(page, good)).endswith(".")


def _chosen(page: Page, path: Path) -> Page:
    choose(page, path)
    return page


def test_too_large_a_file_is_refused_in_words(visit: Visit, address: str, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(good_png() + bytes(6 * 2**20))
    page = visit(address)
    choose(page, large)
    assert "maximum allowed size" in page.get_by_test_id("toast-body").inner_text()
