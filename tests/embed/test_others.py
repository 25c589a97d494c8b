"""Captions in formats that are read only: camera raws in the forms of their makers, JPEG XL, BigTIFF."""

from __future__ import annotations

import io
import random
import shutil
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from captioner.embed import others
from captioner.embed.embedding import embed, read_fields
from captioner.errors import ImageError, NoDecoderError
from tests.embed.pictures import exiftool, save
from tests.embed.test_words import HUMAN, described, exif, iim, item, press, resources, xmp

PACKET = xmp(described(item("x-default", "in XMP")))


def structure(description: str | None = HUMAN, user_comment: bytes = b"", **tags: bytes) -> bytes:
    """A TIFF structure with a description, a comment of the user in its place, and other fields."""
    values = Image.Exif()
    values.endian = "<"
    if description is not None:
        values[0x010E] = description
    if user_comment:
        values.get_ifd(0x8769)[0x9286] = user_comment
    for name, content in tags.items():
        values[{"xmp": 0x02BC, "iptc": 0x83BB, "preview": 0x002E, "comment": 0x9286}[name]] = content
    return values.tobytes().removeprefix(b"Exif\0\0")


def box(name: bytes, *contents: bytes, wide: bool = False) -> bytes:
    content = b"".join(contents)
    size = struct.pack(">I4sQ", 1, name, 16 + len(content)) if wide else struct.pack(">I4s", 8 + len(content), name)
    return size + content


def fujifilm(jpeg: bytes) -> bytes:
    head = b"FUJIFILMCCD-RAW 0201FF383501X-T1".ljust(60, b"\0") + b"0100" + bytes(20)
    places = 148, len(jpeg), 148 + len(jpeg), 4, 152 + len(jpeg), 60
    return (head + struct.pack(">6I", *places)).ljust(148, b"\0") + jpeg + bytes(64)


def minolta(exif: bytes) -> bytes:
    blocks = b"\0PRD" + struct.pack(">I", 24) + bytes(24) + b"\0TTW" + struct.pack(">I", len(exif)) + exif
    return b"\0MRM" + struct.pack(">I", len(blocks)) + blocks + bytes(64)


def canon(*directories: bytes, packet: bytes = b"") -> bytes:
    inner = [box(f"CMT{n}".encode(), each) for n, each in enumerate(directories, start=1)]
    named = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48"), bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
    film = box(b"moov", box(b"uuid", named[0], box(b"CNCV", b"CanonCR3_001/00.09.00/00.00.00"), *inner))
    after = box(b"uuid", named[1], packet) if packet else b""
    return box(b"ftyp", b"crx \0\0\0\1crx isom") + film + after + box(b"mdat", bytes(64), wide=True)


def jxl(*boxes: bytes) -> bytes:
    return box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ") + b"".join(boxes) + box(b"jxlc", b"\xff\x0a")


def big_tiff(**options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((16, 16), np.uint8), bigtiff=True, **options)
    return file.getvalue()


def fields(data: bytes) -> dict[str, str]:
    return {field.name: field.text for field in read_fields(io.BytesIO(data), "picture")}


IN_TIFF = structure(user_comment=b"ASCII\0\0\0by the user", xmp=PACKET, iptc=iim((2, 120, b"in IPTC")))
ALL = {
    "EXIF ImageDescription": HUMAN,
    "EXIF UserComment": "by the user",
    "XMP dc:description": "in XMP",
    "IPTC Caption-Abstract": "in IPTC",
}
IPTC_ALONE = press(resources(iim((2, 120, b"in IPTC"))))
FILES: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "fujifilm.raf": (fujifilm(exif(description=HUMAN)), ("EXIF ImageDescription",)),
    "fujifilm with iptc.raf": (fujifilm(IPTC_ALONE), ("IPTC Caption-Abstract",)),
    "olympus.orf": (b"IIRO" + IN_TIFF[4:], tuple(ALL)),
    "panasonic.rw2": (b"IIU\0" + structure(None, xmp=PACKET)[4:], ("XMP dc:description",)),
    "panasonic with preview.rw2": (b"IIU\0" + structure(None, preview=IPTC_ALONE)[4:], ("IPTC Caption-Abstract",)),
    "minolta.mrw": (minolta(structure()), ("EXIF ImageDescription",)),
    "canon.cr3": (
        canon(structure(), structure(None, comment=b"ASCII\0\0\0by the user"), packet=PACKET),
        ("EXIF ImageDescription", "EXIF UserComment", "XMP dc:description"),
    ),
    "big.tif": (big_tiff(description=HUMAN), ("EXIF ImageDescription",)),
    "big endian.tif": (big_tiff(description=HUMAN, byteorder=">"), ("EXIF ImageDescription",)),
    "big with xmp.tif": (big_tiff(metadata=None, extratags=[(700, 1, None, PACKET, True)]), ("XMP dc:description",)),
    "boxes.jxl": (
        jxl(box(b"Exif", bytes(4), structure()), box(b"xml ", PACKET)),
        ("EXIF ImageDescription", "XMP dc:description"),
    ),
    "offset.jxl": (jxl(box(b"Exif", b"\0\0\0\6Exif\0\0", structure(), wide=True)), ("EXIF ImageDescription",)),
    "other xml.jxl": (jxl(box(b"xml ", b"<svg/>"), box(b"Exif", bytes(4), structure())), ("EXIF ImageDescription",)),
    "codestream.jxl": (b"\xff\x0a" + bytes(600), ()),
}


@pytest.mark.parametrize("name", FILES)
def test_captions_are_read(name: str) -> None:
    data, found = FILES[name]
    assert fields(data) == {each: ALL[each] for each in found}


def test_exiftool_reads_the_same(tmp_path: Path) -> None:
    names = [name for name in FILES if name.endswith((".raf", ".orf", ".rw2", ".mrw", ".cr3", ".jxl"))]
    for name in names:
        (tmp_path / name).write_bytes(FILES[name][0])
    for name in names:
        said = exiftool(tmp_path / name)
        assert {said[key] for key in said if key.rpartition(":")[2] in TAGS} == {ALL[each] for each in FILES[name][1]}


TAGS = ("ImageDescription", "UserComment", "Description", "Caption-Abstract")


@pytest.mark.parametrize("name", ["fujifilm.raf", "olympus.orf", "panasonic with preview.rw2", "minolta.mrw"])
def test_what_exiftool_writes_is_read(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(FILES[name][0])
    if shutil.which("exiftool") is None:
        pytest.skip("needs exiftool: apt-get install libimage-exiftool-perl")
    texts = ("-ImageDescription=One", "-UserComment=Two", "-XMP-dc:Description=Three", "-IPTC:Caption-Abstract=Four")
    subprocess.run(["exiftool", "-overwrite_original", *texts, str(file)], check=True, capture_output=True)
    assert {*fields(file.read_bytes()).values()} >= {"One", "Two", "Three"}


@pytest.fixture
def compressed() -> bytes:
    """A JPEG XL whose metadata are compressed, as cjxl does it unless told otherwise."""
    pytest.importorskip("pillow_jxl", reason="the extra 'jxl' is not installed")
    data = save("JXL", exif=structure(), xmp=PACKET, use_container=True, compress_metadata=True)
    assert data.count(b"brob") == 2
    return data


def test_compressed_boxes_of_jpeg_xl(compressed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fields(compressed) == {"EXIF ImageDescription": HUMAN, "XMP dc:description": "in XMP"}
    bomb = pytest.importorskip("brotli").compress(bytes(1 << 20))
    monkeypatch.setattr(others, "_MOST_BYTES", 1 << 16)
    for content, fault in (
        (bomb, "its metadata are too long"),
        (bomb[:9], "too long or damaged"),
        (b"no brotli", "boxes are"),
    ):
        with pytest.raises(ImageError, match=fault):
            fields(jxl(box(b"brob", b"xml ", content)))
    monkeypatch.setitem(sys.modules, "brotli", None)
    with pytest.raises(NoDecoderError, match=r"picture: its metadata are compressed .*'captioner\[jxl\]'"):
        fields(compressed)


@pytest.mark.parametrize("name", ["fujifilm.raf", "minolta.mrw", "canon.cr3", "big.tif", "boxes.jxl"])
def test_damaged_files_end_in_one_line(name: str) -> None:
    data = FILES[name][0]
    for end in range(200, len(data), 97):
        with suppress(ImageError):
            fields(data[:end])
    chance = random.Random(name)
    for _ in range(60):
        changed = bytearray(data)
        for place in chance.sample(range(min(len(data), 700)), 3):
            changed[place] = chance.choice((0, 128, 255, chance.randrange(256)))
        with suppress(ImageError):
            fields(bytes(changed))


def test_an_offset_of_64_bits_that_leads_nowhere() -> None:
    with pytest.raises(ImageError, match="no directory"):
        fields(b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(600))


def test_other_raws_and_no_bigtiff_as_exif() -> None:
    for data in (b"FOVb" + bytes(600), b"II\x1a\0\0\0HEAPCCDR" + bytes(600)):
        with pytest.raises(ImageError, match="its captions cannot be read"):
            fields(data)
    jpeg = save("JPEG", exif=b"Exif\0\0" + big_tiff())
    with pytest.raises(ImageError, match="it is a BigTIFF"):
        embed(jpeg, HUMAN, "picture")
