from __future__ import annotations

import random
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from captioner.errors import CaptionerError, ImageError
from captioner.images import archive
from captioner.images.archive import Found, find_uploads
from tests.web.hostile import good_png, zip_of


def uploaded(tmp_path: Path, content: bytes, name: str = "photos.zip") -> list[tuple[Path, str]]:
    path = tmp_path / "upload"
    path.write_bytes(content)
    return [(path, name)]


def failure(found: Found) -> str:
    with pytest.raises(ImageError) as caught:
        found.read()
    return str(caught.value)


def test_files_and_entries_come_in_order(tmp_path: Path) -> None:
    content = zip_of(("b/2.png", good_png("red")), ("a.PNG", good_png("blue")))
    uploads = uploaded(tmp_path, content)
    single = tmp_path / "single.jpg"
    single.write_bytes(b"anything")
    found = list(find_uploads([(single, "single.jpg"), *uploads, (single, "again.jpg")]))
    assert [item.name for item in found] == ["single.jpg", "b/2.png", "a.PNG", "again.jpg"]
    assert [item.read() for item in found] == [b"anything", good_png("red"), good_png("blue"), b"anything"]


def test_only_images_are_looked_at(tmp_path: Path) -> None:
    content = zip_of(
        ("readme.txt", b"x"),
        ("__MACOSX/._a.jpg", b"x"),
        (".hidden.jpg", b"x"),
        ("folder/", b""),
        ("a.jpg", b"y"),
    )
    assert [item.name for item in find_uploads(uploaded(tmp_path, content))] == ["a.jpg"]


def test_an_archive_is_told_by_its_content(tmp_path: Path) -> None:
    assert len(list(find_uploads(uploaded(tmp_path, zip_of(("a.jpg", b"")), "photo.jpg")))) == 1
    (found,) = find_uploads(uploaded(tmp_path, b"no archive", "photos.zip"))
    assert found.read() == b"no archive"  # told by whoever opens it as an image


@pytest.mark.parametrize(
    "name",
    ["../evil.png", "a/../../evil.png", "/etc/evil.png", "..\\evil.png", "C:\\evil.png", "C:/evil.png"],
)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    bad, good = find_uploads(uploaded(tmp_path, zip_of((name, good_png()), ("good.png", good_png()))))
    assert "leads out of the archive" in failure(bad)
    assert good.read() == good_png()
    assert not (tmp_path.parent / "evil.png").exists()


def test_a_bomb_is_read_only_as_far_as_its_limit(tmp_path: Path) -> None:
    content = zip_of(("bomb.png", bytes(70 * 2**20)), ("good.png", good_png()))
    assert len(content) < 100_000
    bomb, good = find_uploads(uploaded(tmp_path, content))
    assert "unpacks to too many bytes" in failure(bomb)
    assert good.read() == good_png()


def test_many_small_bombs_share_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_TOTAL_BYTES", 5 * 2**20)
    content = zip_of(*((f"{number}.png", bytes(2 * 2**20)) for number in range(5)))
    found = list(find_uploads(uploaded(tmp_path, content)))
    assert [len(item.read()) for item in found[:2]] == [2 * 2**20] * 2
    assert ["too many bytes" in failure(item) for item in found[2:]] == [True] * 3


def test_a_zip_in_a_zip_is_not_opened(tmp_path: Path) -> None:
    inner = zip_of(("a.png", good_png()))
    (found,) = find_uploads(uploaded(tmp_path, zip_of(("inner.zip", inner), ("inner.png", inner))))
    assert found.name == "inner.png"
    assert found.read() == inner  # and the reader of images says that it is none


def test_too_many_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_IMAGES", 3)
    with pytest.raises(CaptionerError, match="more than 3 images"):
        list(find_uploads(uploaded(tmp_path, zip_of(*((f"{n}.png", b"") for n in range(4))))))


def test_an_endless_directory_is_not_read(tmp_path: Path) -> None:
    content = zip_of(*((f"{number:05}{'x' * 60_000}.png", b"") for number in range(75)))
    (found,) = find_uploads(uploaded(tmp_path, content))
    assert "too many files" in failure(found)


def test_a_locked_image_is_told(tmp_path: Path) -> None:
    content = bytearray(zip_of(("a.png", good_png())))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + offset] |= 1
    (found,) = find_uploads(uploaded(tmp_path, bytes(content)))
    assert "locked with a password" in failure(found)


def test_an_unknown_compression_is_told(tmp_path: Path) -> None:
    content = bytearray(zip_of(("a.png", good_png())))
    for magic, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        place = content.index(magic) + offset
        content[place : place + 2] = struct.pack("<H", 97)
    (found,) = find_uploads(uploaded(tmp_path, bytes(content)))
    assert "damaged" in failure(found)


def test_an_archive_without_images_is_told(tmp_path: Path) -> None:
    for content in (zip_of(), zip_of(("notes.txt", b"x"))):
        (found,) = find_uploads(uploaded(tmp_path, content))
        assert failure(found) == "photos.zip: there are no images in the archive"


def test_damage_anywhere_is_told_or_harmless(tmp_path: Path) -> None:
    whole = zip_of(*((f"{n}.png", good_png("red") + bytes(random.Random(n).randbytes(500))) for n in range(4)))
    for cut in range(4, len(whole), 37):
        (found,) = find_uploads(uploaded(tmp_path, whole[:cut]))
        assert failure(found) == "photos.zip: not a complete zip archive"
    chance = random.Random(0)
    for _ in range(300):
        content = bytearray(whole)
        content[4:] = bytes(b if chance.random() > 0.01 else chance.randrange(256) for b in content[4:])
        for item in find_uploads(uploaded(tmp_path, bytes(content))):
            with suppress(ImageError):  # anything else would be a traceback on the server
                item.read()


def test_a_file_that_has_gone_is_told_without_its_path(tmp_path: Path) -> None:
    (found,) = find_uploads([(tmp_path / "gone", "dog.jpg")])
    assert failure(found) == "dog.jpg: is no longer there; upload it again"


def test_names_in_archives_are_printable(tmp_path: Path) -> None:
    (found,) = find_uploads(uploaded(tmp_path, zip_of(("a\nb/\u202ec<i>.png", b""))))
    assert found.name == "a\ufffdb/\ufffdc<i>.png"


def test_two_of_one_name_get_two_names(tmp_path: Path) -> None:
    single = tmp_path / "single"
    single.write_bytes(b"anything")
    first = uploaded(tmp_path, zip_of(("x/a.jpg", b"1"), ("a.jpg", b"2"), ("a (2).jpg", b"3")))
    names = ["a.jpg", "a.jpg", "a", "a", ".jpg", ".jpg"]
    found = list(find_uploads([*((single, name) for name in names), *first, *first]))
    assert [item.name for item in found] == [
        *("a.jpg", "a (2).jpg", "a", "a (2)", ".jpg", ".jpg (2)"),
        *("x/a.jpg", "a (3).jpg", "a (2) (2).jpg", "x/a (2).jpg", "a (4).jpg", "a (2) (3).jpg"),
    ]
    assert found[6].read() == b"1"


def test_what_systems_leave_in_archives_is_no_image(tmp_path: Path) -> None:
    content = zip_of(
        ("@eaDir/a.jpg", b"x"), ("b/.thumbnails/a.jpg", b"x"), ("a-masklabel.png", b"x"), ("b/a.jpg", b"y")
    )
    assert [item.name for item in find_uploads(uploaded(tmp_path, content))] == ["b/a.jpg"]
