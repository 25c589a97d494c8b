from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captioner.download.catalog import Archive, Piece
from captioner.download.plan import unpack
from captioner.errors import DatasetError
from tests.download.small import zipped

ARCHIVE = Archive(
    "http://nowhere/a.zip", size=0, unpacked=1000, pieces=(Piece("photos/", 2), Piece("texts/captions.json"))
)
FILES = {
    "photos/1.jpg": b"one",
    "photos/2.jpg": b"two",
    "texts/captions.json": b"{}",
    "texts/other.json": b"-",
}


def _unpack(tmp_path: Path, content: bytes) -> dict[str, bytes]:
    """Unpacks into a folder whose work folder lies inside, and returns the files there."""
    folder = tmp_path / "data"
    file = folder / "work" / "a.zip"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    try:
        unpack(file, ARCHIVE, folder, lambda *_: None)
        assert file.exists()
    finally:
        assert not (file.parent / "a.zip.unpacked").exists()
        assert {place.name for place in tmp_path.iterdir()} == {"data"}
    return _files(folder)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        place.relative_to(folder).as_posix(): place.read_bytes()
        for place in folder.rglob("*")
        if place.is_file() and place.name != "a.zip"
    }


def test_only_the_pieces_are_kept(tmp_path: Path) -> None:
    expected = {name: content for name, content in FILES.items() if name != "texts/other.json"}
    assert _unpack(tmp_path, zipped(FILES)) == expected


def test_progress_counts_unpacked_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    file.write_bytes(zipped(FILES))
    seen: list[tuple[str, int, int]] = []
    unpack(file, ARCHIVE, tmp_path, lambda *step: seen.append(step))
    assert seen == [("unpacking a.zip", done, 8) for done in (3, 6, 8)]


def test_other_files_in_the_folder_are_left_alone_and_older_ones_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "data" / "photos" / "mine.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    (mine.parent / "1.jpg").write_bytes(b"half a pho")
    files = _unpack(tmp_path, zipped(FILES))
    assert files["photos/mine.jpg"] == b"mine"
    assert files["photos/1.jpg"] == b"one"


def _with_member(name: str, mode: int = 0) -> bytes:
    out = io.BytesIO(zipped(FILES))
    with zipfile.ZipFile(out, "a") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        archive.writestr(member, b"/etc/passwd")
    return out.getvalue()


def _with_changed_end(offset: int, change: int) -> bytes:
    """Changes a byte of the record at the end that says how large the directory is (12) and where (16)."""
    content = bytearray(zipped(FILES))
    content[content.rindex(b"PK\x05\x06") + offset] ^= change
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_with_member("../outside.txt"), "would lie outside the folder"),
        (_with_member("photos/../../outside.txt"), "would lie outside the folder"),
        (_with_member("/outside.txt"), "would lie outside the folder"),
        (_with_member("photos\\..\\..\\outside.txt"), "would lie outside the folder"),
        (_with_member("C:/outside.txt"), "would lie outside the folder"),
        (_with_member("photos/3.jpg", stat.S_IFLNK | 0o777), "is a link or a device"),
        (_with_member("photos/3.jpg", stat.S_IFIFO | 0o666), "is a link or a device"),
        (_with_member(""), "without a name"),
        (zipped(FILES, zipfile.ZIP_LZMA), "compressed in an unusual way"),
        (_with_changed_end(15, 0x80), ""),
        (_with_changed_end(17, 0x01), ""),
        (_with_member("other", stat.S_IFLNK | 0o777), "is a link or a device"),
        (zipped({**FILES, "photos/3.jpg": b"x" * 2000}), "would unpack to 0.0 MB where at most"),
        (
            zipped({"photos/1.jpg": b"one", "texts/captions.json": b"{}"}),
            "lacks photos/, in whole or in part",
        ),
        (zipped({"photos/1.jpg": b"one", "photos/2.jpg": b"two"}), "lacks texts/captions.json"),
        (zipped({}), "lacks photos/, texts/captions.json"),
        (zipped(FILES)[:-30], "not a zip file"),
        (zipped(FILES)[:40], "not a zip file"),
        (b"<html>Please log in</html>", "not a zip file"),
        (b"", "not a zip file"),
    ],
    # An archive holds the time at which it was made, so its bytes are no name for a test.
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_unsafe_and_broken_archives_are_deleted_and_leave_nothing(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=rf"a\.zip: broken or unsafe archive, .*{message}.* deleted"):
        _unpack(tmp_path, content)
    assert list((tmp_path / "data").rglob("*")) == [tmp_path / "data" / "work"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"'photos/1\.jpg' is in it twice"):
        _unpack(tmp_path, _with_member("photos/1.jpg"))


def _stored() -> bytearray:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    return bytearray(out.getvalue())


def test_a_flipped_bit_in_a_image_is_found_by_its_checksum(tmp_path: Path) -> None:
    content = _stored()
    content[content.index(b"one")] ^= 1
    with pytest.raises(DatasetError, match="Bad CRC-32"):
        _unpack(tmp_path, bytes(content))


def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    bomb = zipped({**FILES, "photos/2.jpg": b"\0" * 5_000_000})
    lie = bomb.replace(struct.pack("<I", 5_000_000), struct.pack("<I", 3))
    with pytest.raises(DatasetError, match="broken or unsafe archive"):
        _unpack(tmp_path, lie)


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    content = _stored()
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    with pytest.raises(DatasetError, match="encrypted"):
        _unpack(tmp_path, bytes(content))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_archives_never_do_worse_than_an_error(tmp_path: Path, damage: list[tuple[int, int]]) -> None:
    content = _stored()
    for place, value in damage:
        content[place % len(content)] = value
    try:
        files = _unpack(tmp_path, bytes(content))
    except DatasetError:
        return
    assert {b"one", b"two"} <= set(files.values())


def test_a_folder_that_cannot_be_written_keeps_the_archive(tmp_path: Path) -> None:
    (tmp_path / "data" / "photos").mkdir(parents=True)
    (tmp_path / "data" / "photos" / "1.jpg").mkdir()
    with pytest.raises(DatasetError, match="cannot be written"):
        _unpack(tmp_path, zipped(FILES))
    assert (tmp_path / "data" / "work" / "a.zip").exists()
