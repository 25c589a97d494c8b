from __future__ import annotations

import csv
import io
import itertools
import json
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")

from captioner.captioner import Captioner
from captioner.web import many
from captioner.web.service import Prepared, Service
from tests.browser.acting import expect_texts, expect_values, open_tab
from tests.browser.conftest import PATIENCE
from tests.web.hostile import good_png, truncated_jpeg, zip_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

Visit = Callable[..., "Page"]

ITEMS = [
    ("a.jpg", 'He says "hi", twice', ""),
    ("x/b.png", "Größe ✓", ""),
    ("bad.jpg", "", "bad.jpg: broken"),
    ("a.png", "=1+1", ""),
]
_SHOW = """(items) => document.querySelector("#gallery").replaceChildren(...items.map(([image, caption, error]) => {
    const shot = document.createElement("figure"), field = document.createElement("textarea");
    shot.className = "shot";
    Object.assign(shot.dataset, error ? { image, error } : { image, logProb: "-1.5" });
    field.value = field.defaultValue = caption;
    shot.append(field);
    return shot;
}))"""


def upload(page: Page, paths: list[Path]) -> None:
    open_tab(page, "Many images")
    page.locator("#many input[type=file]").first.set_input_files(paths)
    page.locator("#many .file-preview").wait_for()


def saved(page: Page, name: str) -> bytes:
    with page.expect_download() as download:
        page.locator("#downloads").get_by_role("button", name=name).click()
    return Path(download.value.path()).read_bytes()


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_images_are_captioned_edited_and_downloaded(
    visit: Visit, address: str, captioner: Captioner, images: list[Path], tmp_path: Path, size: str
) -> None:
    broken = tmp_path / "<b>broken.jpg"
    broken.write_bytes(truncated_jpeg())
    archive = tmp_path / "more.zip"
    archive.write_bytes(zip_of(("in/bee.jpg", images[1].read_bytes()), ("../evil.png", good_png())))
    page = visit(address, size)
    upload(page, [images[0], broken, archive])
    page.locator("#start").click()
    verdict = page.locator(".progress .verdict")
    verdict.wait_for()
    assert "Captioned 2 images" in verdict.inner_text()
    assert "images/s" in verdict.inner_text()
    expect_texts(page, "#announcer", verdict.inner_text())
    told = page.locator(".broken li").all_inner_texts()
    assert "<b>broken.jpg: broken or incomplete JPEG" in told[0]
    assert "leads out of the archive" in told[1]

    fields = page.locator("#gallery textarea")
    expected = [captions[0].text for captions in captioner.caption(images[:2])]
    expect_values(page, "#gallery textarea", expected)
    fields.nth(1).fill("My own bee,\nasleep")
    rows = [*csv.reader(io.StringIO(saved(page, "CSV").decode()))]
    assert rows == [
        ["image", "caption"],
        ["astronaut.jpg", expected[0]],
        ["in/bee.jpg", "My own bee, asleep"],
    ]
    records = [json.loads(line) for line in saved(page, "JSON Lines").decode().splitlines()]
    assert [("error" in record, "edited" in record) for record in records] == [
        (False, False),
        (True, False),
        (False, True),
        (True, False),
    ]
    assert [entry["image_id"] for entry in json.loads(saved(page, "COCO JSON"))] == [1, 2]
    with zipfile.ZipFile(io.BytesIO(saved(page, "Text files (zip)"))) as sidecars:
        assert sidecars.namelist() == ["astronaut.txt", "in/bee.txt"]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    page.locator("#start").click()  # once more: the edit of the run before is gone
    expect_values(page, "#gallery textarea", expected)
    page.locator(".progress .verdict").wait_for()
    page.evaluate(_SHOW, [*ITEMS])
    assert saved(page, "CSV").decode() == (
        'image,caption\r\na.jpg,"He says ""hi"", twice"\r\nx/b.png,Größe ✓\r\na.png,=1+1\r\n'
    )
    with zipfile.ZipFile(io.BytesIO(saved(page, "Text files (zip)"))) as sidecars:
        assert sidecars.testzip() is None
        texts = {name: sidecars.read(name).decode() for name in sidecars.namelist()}
    assert texts == {"a.txt": 'He says "hi", twice\n', "x/b.txt": "Größe ✓\n", "a (2).txt": "=1+1\n"}
    for names, ids in (
        (["COCO_val2014_000000000139.jpg", "v/000000000285.jpg"], [139, 285]),
        (["139.jpg", "0139.jpg", "dog.jpg"], [1, 2, 3]),
        (["139.jpg", "0139.jpg"], [1, 2]),
    ):
        page.evaluate(_SHOW, [[name, "A.", ""] for name in names])
        assert [entry["image_id"] for entry in json.loads(saved(page, "COCO JSON"))] == ids


def test_an_edited_caption_is_kept_on_reload(visit: Visit, address: str, images: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(truncated_jpeg())
    page = visit(address)
    upload(page, [images[0], broken, images[1]])
    page.locator("#start").click()
    page.locator(".progress .verdict").wait_for()
    fields, shots = page.locator("#gallery textarea"), page.locator("#gallery img")
    written = fields.nth(1).input_value()
    fields.first.fill("My <b>own</b> & only")
    before = saved(page, "JSON Lines")
    page.reload()
    expect_values(page, "#gallery textarea", ["My <b>own</b> & only", written])
    assert saved(page, "JSON Lines") == before
    assert page.locator(".broken li").count() == 1
    assert shots.count() == 2

    # Where the images are more than the browser keeps, the captions come back without them; no other tab loses any.
    page.evaluate("""() => {
        const keep = Storage.prototype.setItem;
        Storage.prototype.setItem = function (name, value) {
            if (value.includes("data:image")) throw new DOMException("too much", "QuotaExceededError");
            keep.call(this, name, value);
        };
    }""")
    fields.nth(1).fill("Mine too")
    for _ in range(2):
        page.goto(address)
        page.locator(".welcome").wait_for()
    open_tab(page, "Many images")
    expect_values(page, "#gallery textarea", ["My <b>own</b> & only", "Mine too"])
    assert shots.count() == 0
    upload(page, [images[2]])
    page.locator("#start").click()
    page.locator('#gallery [data-image="bridge.jpg"] textarea').wait_for()
    assert fields.count() == 1


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_a_long_run_shows_its_progress_and_can_be_stopped(
    visit: Visit,
    serve: Callable[[Service], str],
    checkpoint_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: str,
) -> None:
    stopped = threading.Event()

    class Album(many.Album):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "stopping" and value:
                stopped.set()

    monkeypatch.setattr(many, "Album", Album)
    monkeypatch.setattr(many, "_REPORT", 0)
    archive = tmp_path / "many.zip"
    archive.write_bytes(zip_of(*((f"{number}.png", good_png()) for number in range(400))))
    service = Service(checkpoint_file, device="cpu")
    service.models.start()
    prepare, going_on, begun = service.prepare, threading.Event(), itertools.count()

    def prepare_some(*args: Any, **options: Any) -> Prepared:
        if next(begun) >= 40:
            going_on.wait()
        return prepare(*args, **options)

    monkeypatch.setattr(service, "prepare", prepare_some)
    page = visit(serve(service), size)
    upload(page, [archive])
    assert page.locator("#stop").is_disabled()
    page.locator("#start").click()
    page.wait_for_function("document.querySelectorAll('#gallery textarea').length > 5")
    assert "of 400 images" in page.locator(".progress p").inner_text()
    assert page.get_by_role("progressbar", name="Images done").is_visible()
    page.locator("#stop").click()
    assert stopped.wait(PATIENCE / 1000)
    going_on.set()
    verdict = page.locator(".progress .verdict")
    verdict.wait_for()
    assert verdict.inner_text().startswith("Stopped after ")
    assert page.locator("#gallery textarea").count() < 50
    assert page.locator("#stop").is_disabled()


def test_a_hostile_archive_is_told_and_the_next_one_works(visit: Visit, address: str, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    bomb.write_bytes(zip_of(("bomb.png", bytes(70 * 2**20))))
    page = visit(address)
    upload(page, [bomb])
    page.locator("#start").click()
    page.get_by_text("unpacks to too many bytes").wait_for()
    assert not page.locator("#downloads").is_visible()
    good = tmp_path / "good.png"
    good.write_bytes(good_png())
    page = visit(address)
    upload(page, [good])
    page.locator("#start").click()
    page.locator("#gallery textarea").wait_for()
