from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from PIL import Image

from captioner.bulk.merge import merge
from captioner.bulk.options import FolderOptions
from captioner.bulk.run import Progress, caption_folder
from captioner.bulk.store import store_of
from captioner.caption import Caption
from captioner.errors import OutputError
from captioner.records import Record
from captioner.writers import Html
from tests.bulk import fakes
from tests.bulk.tarring import make_tar, samples

HOSTILE = '<script>alert("1 & 2")</script>'


def test_what_stands_around_the_cards_stays_as_it_was() -> None:
    # Sheets of earlier releases are merged, and runs resumed, only while these bytes are equal, every word included.
    around = (Html.header + "\0" + Html.footer).encode()
    assert hashlib.sha256(around).hexdigest().startswith("68c9618d2126")


class Cards(HTMLParser):
    """What a sheet says of each image, and that its elements are closed in order."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.cards: list[dict[str, str]] = []
        self.open: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        values = {name: value or "" for name, value in attributes}
        if tag not in ("meta", "input", "img"):
            self.open.append(tag)
        if tag == "li":
            self.cards.append({"class": values.get("class", ""), "text": ""})
        if tag == "a":
            self.cards[-1]["link"] = values["href"]
        if tag == "img":
            self.cards[-1] |= {"alt": values["alt"], "src": values["src"], "loading": values["loading"]}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "li" in self.open:
            self.cards[-1]["text"] += data + "\n"


@pytest.fixture(autouse=True)
def _colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.engine.Engine", fakes.ColourEngine)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images, the third broken, the last with a name of its own."""
    folder = tmp_path / "pictures"
    for number in range(5):
        fakes.save_colour(folder / f"{number}.png", number)
    (folder / "2.png").write_text("broken")
    fakes.save_colour(folder / os.fsdecode(b'a:b #1? %41 "<i>&\xff.png'), 5)
    return folder


def run(folder: Path, output: Path, **options: object) -> tuple[int, int, int]:
    settings = FolderOptions(output=str(output), workers=0, batch_size=2, **options)  # type: ignore[arg-type]
    summary = caption_folder([str(folder)], settings, fakes.colour_model(), Progress())
    return summary.captioned, summary.skipped, summary.failed


def test_each_image_has_a_thumbnail_a_caption_and_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sheets").mkdir()
    sheet = tmp_path / "sheets" / "sheet.html"
    assert run(folder, sheet) == (5, 0, 1)
    cards = Cards(sheet.read_bytes()).cards
    images = [folder / f"{number}.png" for number in range(5)] + [folder / os.fsdecode(b'a:b #1? %41 "<i>&\xff.png')]
    assert len(cards) == 6
    for number, (card, image) in enumerate(zip(cards, images, strict=True)):
        assert (sheet.parent / os.fsdecode(unquote_to_bytes(card["link"]))).samefile(image)
        assert not re.match("[a-z]+:", card["link"])
        if number == 2:
            assert card["class"] == "failed"
            assert card["text"].startswith("failed\nnot an image in a known format")
            assert "src" not in card
            continue
        assert card["alt"] == f"colour {number} 0 7"
        assert card["text"].startswith(f"colour {number} 0 7\n")
        assert card["loading"] == "lazy"
        kind, data = card["src"].split(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as thumbnail:
            assert thumbnail.size == (5, 4)
            assert max(abs(a - b) for a, b in zip(thumbnail.getpixel((1, 1)), (number, 0, 7), strict=True)) < 12
    assert 'a:b #1? %41 "<i>&\\udcff.png' in cards[5]["text"]
    page = sheet.read_text()
    assert "default-src 'none'" in page
    assert "http:" not in page and "https:" not in page  # noqa: PT018


def test_names_captions_and_reasons_are_escaped() -> None:
    entries = [
        Record(HOSTILE, (Caption(HOSTILE, -1.0), Caption("another & one", -2.0)), thumbnail=b"jpeg"),
        Record(HOSTILE, (), f"{HOSTILE}: {HOSTILE}"),
        Record("a.jpg", (Caption("A dog.", -1.0),)),
    ]
    first, second, third = Cards(b"".join(Html().pieces(entries))).cards
    assert first["alt"] == HOSTILE
    assert first["text"] == f"{HOSTILE}\nanother & one\n{HOSTILE}\n"
    assert second["text"] == f"failed\n{HOSTILE}\n{HOSTILE}\n"
    assert third["text"] == "no thumbnail\nA dog.\na.jpg\n"


def test_a_large_image_is_made_small(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (2000, 500), "red").save(tmp_path / "pictures" / "large.jpg")
    run(tmp_path / "pictures", tmp_path / "sheet.html")
    (card,) = Cards((tmp_path / "sheet.html").read_bytes()).cards
    with Image.open(io.BytesIO(base64.b64decode(card["src"].split(",")[1]))) as thumbnail:
        assert thumbnail.size == (256, 64)


def test_a_sheet_is_gone_on_with_like_other_formats(folder: Path, tmp_path: Path) -> None:
    sheet, whole = tmp_path / "sheet.html", tmp_path / "whole.html"
    late = (folder / "1.png").rename(tmp_path / "late.png")
    assert run(folder, sheet) == (4, 0, 1)
    before = sheet.stat().st_mtime_ns
    assert run(folder, sheet) == (0, 4, 1)
    assert sheet.stat().st_mtime_ns == before
    late.rename(folder / "1.png")
    assert run(folder, sheet) == (1, 4, 1)
    run(folder, whole)
    assert sheet.read_bytes() == whole.read_bytes()
    # The same caption, but another image: the thumbnail must not stay.
    image = Image.open(folder / "4.png").resize((9, 3))
    image.save(folder / "4.png")
    assert run(folder, sheet) == (1, 4, 1)
    run(folder, whole, overwrite=True)
    assert sheet.read_bytes() == whole.read_bytes()
    sheet.write_text("edited")
    with pytest.raises(OutputError, match=r"sheet.html: was changed by another program"):
        run(folder, sheet)


def test_a_sheet_is_not_gone_on_with_from_elsewhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(Path("pictures"), Path("sheet.html"))
    monkeypatch.chdir(folder)
    with pytest.raises(OutputError, match=r"sheet.html: was begun with folder \., not pictures"):
        run(Path(), Path("../sheet.html"))


@pytest.mark.parametrize("count", [1, 3, 8])
def test_merged_sheets_equal_one(folder: Path, tmp_path: Path, count: int) -> None:
    run(folder, tmp_path / "whole.html")
    parts = [str(tmp_path / f"part-{number}.html") for number in range(1, count + 1)]
    for number, part in enumerate(parts, 1):
        run(folder, Path(part), shard=f"{number}/{count}")
    assert merge(parts, str(tmp_path / "merged.html"))
    assert (tmp_path / "merged.html").read_bytes() == (tmp_path / "whole.html").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(OutputError, match=r"merged.html: must lie in the folder of .*part-1.html, because of"):
        merge(parts, str(tmp_path / "elsewhere" / "merged.html"))
    for part in parts:
        store_of(Path(part)).unlink()
    assert not merge(parts, str(tmp_path / "merged.html"), overwrite=True)
    assert (tmp_path / "merged.html").read_bytes() == (tmp_path / "whole.html").read_bytes()


def test_images_in_tars_have_thumbnails_and_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_tar(Path("a.tar"), [*samples(1, 2), ("broken.jpg", b"broken")])
    make_tar(Path("b.tar"), samples(3))

    def sheet(output: str, **options: str) -> list[dict[str, str]]:
        choices = FolderOptions(input_tar=("{a,b}.tar",), output=output, workers=0, **options)  # type: ignore[arg-type]
        caption_folder([], choices, fakes.colour_model(), Progress())
        return Cards(Path(output).read_bytes()).cards

    cards = sheet("whole.html")
    assert [card.get("alt") for card in cards] == [*map(fakes.caption_of, (1, 2)), None, fakes.caption_of(3)]
    assert [card["class"] for card in cards] == ["", "", "failed", ""]
    assert not any("link" in card for card in cards)
    for card, number in ((cards[0], 1), (cards[3], 3)):
        with Image.open(io.BytesIO(base64.b64decode(card["src"].split(",")[1]))) as thumbnail:
            assert thumbnail.size == (5, 4)
            assert abs(thumbnail.getpixel((1, 1))[0] - number) < 12
    # without links a merged sheet may lie anywhere
    for number in (1, 2):
        sheet(f"part-{number}.html", shard=f"{number}/2")
    Path("elsewhere").mkdir()
    assert merge(["part-1.html", "part-2.html"], "elsewhere/merged.html")
    assert Path("elsewhere/merged.html").read_bytes() == Path("whole.html").read_bytes()


def test_a_printed_sheet(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = FolderOptions(format="html", workers=0)
    caption_folder(["pictures"], options, fakes.colour_model(), Progress())
    cards = Cards(capsys.readouterr().out.encode()).cards
    assert [card["link"] for card in cards][:2] == ["pictures/0.png", "pictures/1.png"]
