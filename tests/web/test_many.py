from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")


from captioner.captioner import Captioner
from captioner.errors import CaptionerError
from captioner.web import many
from captioner.web.many import (
    Album,
    Item,
    caption_album,
    gallery,
    progress_card,
)
from captioner.web.service import Service
from captioner.web.settings import Settings
from tests.web.hostile import HOSTILE, good_png, truncated_jpeg, zip_of


def run(service: Service, uploads: list[tuple[Path, str]]) -> Album:
    album = Album()
    for _ in caption_album(service, album, uploads, Settings()):
        pass
    return album


@pytest.fixture
def mixed(tmp_path: Path, images: list[Path]) -> list[tuple[Path, str]]:
    """Good and bad uploads: images, a hostile file, an archive with a broken entry."""
    broken = tmp_path / "broken"
    broken.write_bytes(truncated_jpeg())
    archive = tmp_path / "archive"
    archive.write_bytes(
        zip_of(("x/cat.jpg", images[3].read_bytes()), ("bad.png", b"x" * 99), ("../up.png", good_png()))
    )
    return [
        (images[0], "astronaut.jpg"),
        (broken, "<b>broken</b>.jpg"),
        (archive, "all.zip"),
        (images[1], "bee.jpg"),
    ]


def test_captions_are_those_of_single_images(service: Service, captioner: Captioner, images: list[Path]) -> None:
    album = run(service, [(image, image.name) for image in images])
    assert [item.name for item in album.items] == [image.name for image in images]
    assert [item.caption for item in album.items] == [c[0].text for c in captioner.caption(images)]
    assert album.total == len(images)
    assert album.speed > 0
    assert not album.running
    assert {item.thumbnail[:23] for item in album.items} == {"data:image/jpeg;base64,"}


def test_broken_images_are_listed_and_the_others_go_on(
    service: Service, mixed: list[tuple[Path, str]], tmp_path: Path
) -> None:
    album = run(service, mixed)
    assert [item.name for item in album.items if item.error is None] == ["astronaut.jpg", "x/cat.jpg", "bee.jpg"]
    assert [item.name for item in album.broken] == ["<b>broken</b>.jpg", "bad.png", "../up.png"]
    card = progress_card(album)
    assert "Captioned 3 images" in card
    assert "3 could not be read." in card
    assert card.count("<li>") == 3
    assert "<b>" not in card
    assert str(tmp_path) not in card


def test_hostile_files_are_listed(service: Service, tmp_path: Path) -> None:
    uploads = []
    for name, (content, _) in HOSTILE.items():
        path = tmp_path / name
        path.write_bytes(content())
        uploads.append((path, name))
    album = run(service, uploads)
    assert len(album.broken) == len(HOSTILE)
    for item in album.broken:
        assert item.error is not None
        assert HOSTILE[item.name][1] in item.error


def test_stopping_ends_after_the_images_under_way(
    service: Service, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "_REPORT", 0)
    monkeypatch.setattr(many, "_REPORT_MORE", 0)
    album = Album()
    for _ in caption_album(service, album, [(image, f"{n}.png") for n in range(60)], Settings()):
        if len(album.items) == 3:
            assert "3 of 60 images" in progress_card(album)
            assert "images/s" in progress_card(album)
            album.stopping = True
    assert 3 <= len(album.items) <= 3 + many._AT_ONCE
    assert f"Stopped after {len(album.items)} of 60 images" in progress_card(album)
    assert len(run(service, [(image, "again.png")]).items) == 1


def test_a_visitor_who_leaves_ends_the_work(service: Service, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "_REPORT", 0)
    monkeypatch.setattr(many, "_REPORT_MORE", 0)
    album = Album()
    many_images = [(image, f"{n}.png") for n in range(400)]
    work = caption_album(service, album, many_images, Settings())
    next(work)
    work.close()  # type: ignore[attr-defined]
    assert not album.running
    assert len(album.items) < 400


def test_a_second_run_begins_anew(service: Service, image: Path) -> None:
    album = Album()
    for name in ("one.png", "two.png"):
        for _ in caption_album(service, album, [(image, name)], Settings()):
            pass
    assert [item.name for item in album.items] == ["two.png"]


def test_nothing_to_caption_is_told(service: Service) -> None:
    with pytest.raises(CaptionerError, match="choose some images"):
        run(service, [])


def test_the_gallery_grows_at_its_end_and_escapes() -> None:
    album = Album([Item("<i>.jpg", "</textarea><script>alert(1)</script>", -1.0, "data:,x")])
    first = gallery(album)
    assert "<script>" not in first
    assert "<i>" not in first
    album.items += [Item("bad.jpg", error="broken"), Item("c.jpg", "A cat.", -2.0, "data:,y")]
    assert gallery(album).startswith(first)
    names = ["<i>.jpg", "bad.jpg", "c.jpg"]
    assert [html.unescape(name) for name in re.findall(r'data-image="([^"]*)"', gallery(album))] == names
    assert re.findall(r'data-error="(\w+)"', gallery(album)) == ["broken"]
    assert html.unescape(re.findall(r">([^<]*)</textarea>", gallery(album))[1]) == "A cat."
