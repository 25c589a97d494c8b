from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captioner.embed.authors import Author, author_of
from captioner.embed.embedding import check_embeddable, embed, read_texts
from captioner.errors import ImageError
from tests.embed.pictures import (
    CAPTION,
    NOTE,
    XMP,
    exif,
    exiftool,
    frames,
    images,
    save,
    with_chunk,
    with_extended_xmp,
)

IMAGES = images()
NAMES = sorted(IMAGES)
# What exiftool says of a file that has to do with its size or place, or with how a format counts its parts.
_OF_FILES = ("SourceFile", "System:", "File:", "ExifTool:", "Composite:", "RIFF:WebP_Flags", "RIFF:Alpha")
# Hypothesis also tries words of the library's own code, such as "x-default", which programs write without a person.
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), min_size=1).filter(
    lambda text: author_of(text, comment=True) is Author.PERSON
)


def texts(data: bytes) -> tuple[str, str]:
    return tuple(read_texts(io.BytesIO(data), "picture"))  # type: ignore[return-value]


@pytest.mark.parametrize("name", NAMES)
def test_the_caption_is_in_all_three_places_and_the_pixels_are_the_same(name: str) -> None:
    data = embed(IMAGES[name], CAPTION, name)
    assert texts(data) == (CAPTION, CAPTION)
    assert frames(data) == frames(IMAGES[name])
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif()[0x010E].encode("latin-1").decode() == CAPTION
        packet = image.info["xmp"]
    assert packet.count(b"<dc:description") == packet.count(b"<Iptc4xmpCore:AltTextAccessibility") == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_other_byte_survives(name: str) -> None:
    """What is left when EXIF and XMP are taken out is the same file."""
    before, after = IMAGES[name], embed(IMAGES[name], CAPTION, name)
    with Image.open(io.BytesIO(before)) as old, Image.open(io.BytesIO(after)) as new:
        assert old.info.get("icc_profile") == new.info.get("icc_profile")
        assert old.info.get("comment") == new.info.get("comment")
        if "rich" in name or name == "cmyk.jpg":
            kept = dict(new.getexif())
            assert kept.pop(0x010E)
            assert kept.pop(0x8769) == old.getexif()[0x8769]  # at its old place
            assert kept[0x0112] == 6
            assert new.getexif().get_ifd(0x8769)[0x927C] == NOTE
    if name.endswith(".jpg"):
        scan = b"\xff\xda"
        assert after[after.rindex(scan) :] == before[before.rindex(scan) :]
    if b"<!-- kept -->" in before:
        assert b'<r:Description r:about="uuid:1&amp;2" xmlns:xmp' in after
        assert b'rdf:about="uuid:1&amp;2"><dc:description' in after
        assert b'xmp:Rating="4"/><!-- kept -->' in after
    if name == "extended.jpg":
        assert b"A" * 32 + struct.pack(">II", 60_000, 0) + b"x" * 60_000 in after


@pytest.mark.parametrize("name", NAMES)
def test_exiftool_sees_the_caption_and_nothing_else_that_is_new(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(IMAGES[name])
    before = exiftool(tmp_path / name)
    (tmp_path / name).write_bytes(embed(IMAGES[name], CAPTION, name))
    after = exiftool(tmp_path / name)
    for place in ("IFD0:ImageDescription", "XMP-dc:Description", "XMP-iptcCore:AltTextAccessibility"):
        assert after.pop(place) == CAPTION
    for offset in ("MPImage1:MPImageLength", "MPImage2:MPImageStart"):
        if offset in before:
            grown = len((tmp_path / name).read_bytes()) - len(IMAGES[name])
            assert after.pop(offset) == before.pop(offset) + grown
    after.pop("XMP-rdf:About", None)  # said once more
    before.pop("XMP-rdf:About", None)

    def of_image(found: dict[str, object]) -> dict[str, object]:
        return {key: value for key, value in found.items() if not key.startswith(_OF_FILES)}

    assert of_image(after) == of_image(before)
    assert after.get("ExifTool:Warning") == before.get("ExifTool:Warning")
    assert "ExifTool:Error" not in after


@pytest.mark.parametrize("name", NAMES)
def test_changing_a_caption_back_and_forth_leaves_no_trace(name: str) -> None:
    first = embed(IMAGES[name], CAPTION, name)
    assert embed(first, CAPTION, name, own=CAPTION) == first
    longer = embed(first, "x" * 300, name, own=CAPTION)
    assert texts(longer) == ("x" * 300,) * 2
    assert embed(longer, CAPTION, name, overwrite=True) == first
    assert texts(embed(first, "A.", name, own=CAPTION)) == ("A.", "A.")


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(NAMES), TEXTS)
def test_any_text_comes_back(name: str, text: str) -> None:
    data = embed(IMAGES[name], text, name)
    assert texts(data) == (text.strip(), text.strip())
    assert frames(data) == frames(IMAGES[name])


def test_what_somebody_has_written_stays() -> None:
    described = exif()
    described[0x010E] = "Grandmother's birthday"
    data = embed(save("JPEG", exif=described), CAPTION, "picture")
    assert texts(data) == ("Grandmother's birthday", CAPTION)
    assert b"dc:description" not in data
    assert embed(data, "another", "picture") == data
    assert texts(embed(data, "another", "picture", own=CAPTION)) == ("Grandmother's birthday", "another")
    assert texts(embed(data, "another", "picture", overwrite=True)) == ("another", "another")
    in_xmp = XMP.replace(
        b'xmp:Rating="4"/>',
        b'xmlns:d="http://purl.org/dc/elements/1.1/"><d:description><r:Alt><r:li xml:lang="de">Oma</r:li>'
        b'<r:li xml:lang="x-default">Grandma</r:li></r:Alt></d:description></r:Description>',
    )
    data = embed(save("JPEG", xmp=in_xmp), CAPTION, "picture")
    assert texts(data) == ("Grandma", CAPTION)
    assert b"Oma" in data
    assert 0x010E not in Image.open(io.BytesIO(data)).getexif()


@pytest.mark.parametrize(
    "written", ["", "   ", "OLYMPUS DIGITAL CAMERA         ", "SONY DSC", "Exif_JPEG_PICTURE", "DCIM\\100M"]
)
def test_what_cameras_write_is_no_description(written: str) -> None:
    values = exif()
    values[0x010E] = written
    assert texts(embed(save("JPEG", exif=values), CAPTION, "picture")) == (CAPTION, CAPTION)


@pytest.mark.parametrize(("kind", "said"), [("GIF", "GIF"), ("BMP", "BMP"), ("TIFF", "TIFF"), ("AVIF", "AVIF")])
def test_other_formats_are_refused(kind: str, said: str) -> None:
    message = rf"^picture: no caption can be embedded \(its format is {said}, not JPEG, PNG or WebP\); `format` xmp"
    with pytest.raises(ImageError, match=message):
        check_embeddable(save(kind), "picture")


def test_what_has_no_room_is_refused() -> None:
    full = XMP.replace(b"<!-- kept -->", b"<!--" + b"x" * 64_980 + b"-->")
    message = r"^picture: no caption can be embedded \(its XMP has no room for a caption\)$"
    with pytest.raises(ImageError, match=message):
        check_embeddable(save("JPEG", xmp=full), "picture")
    padded = XMP.replace(b" " * 200, b" " * 64_900)  # room that is kept for just this
    assert texts(embed(save("JPEG", xmp=padded), CAPTION, "picture")) == (CAPTION, CAPTION)
    values = exif()
    values[0x010F] = "x" * 64_650
    with pytest.raises(ImageError, match="its EXIF has no room for a caption"):
        check_embeddable(save("JPEG", exif=values), "picture")
    assert texts(embed(save("PNG", exif=values), CAPTION, "picture")) == (CAPTION, CAPTION)


def test_metadata_in_several_segments_are_refused() -> None:
    data = save("JPEG", exif=exif())
    segment = data[data.index(b"\xff\xe1") : data.index(b"\xff\xdb")]
    with pytest.raises(ImageError, match="its EXIF is in several segments"):
        check_embeddable(data.replace(segment, segment * 2), "picture")


def test_compressed_xmp_and_exif_of_older_software_in_png() -> None:
    packed = with_chunk(save("PNG"), b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))
    data = embed(packed, CAPTION, "picture")
    assert texts(data) == (CAPTION, CAPTION)
    assert b'xmp:Rating="4"' in data
    digits = exif().tobytes().hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    profile = b"Raw profile type exif\0\0" + zlib.compress(f"\nexif\n{len(digits) // 2:8}\n{lines}\n".encode())
    data = embed(with_chunk(save("PNG"), b"zTXt", profile), CAPTION, "picture")
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif()[0x0112] == 6
        assert 0x010E in image.getexif()
    bomb = with_chunk(save("PNG"), b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(1 << 25)))
    with pytest.raises(ImageError, match="its texts are too long or damaged"):
        check_embeddable(bomb, "picture")


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(NAMES), st.data())
def test_damaged_files_are_refused_or_readable_but_never_a_crash(name: str, data: st.DataObject) -> None:
    """Whatever bytes are changed, and wherever the file is cut off."""
    broken = bytearray(IMAGES[name])
    for _ in range(data.draw(st.integers(0, 8))):
        broken[data.draw(st.integers(0, min(len(broken), 1500) - 1))] = data.draw(st.integers(0, 255))
    broken = broken[: data.draw(st.integers(12, len(broken)))]
    try:
        after = embed(bytes(broken), CAPTION, name)
    except ImageError as error:
        assert str(error).startswith(name)  # noqa: PT017
    else:
        assert CAPTION.encode() in after or texts(bytes(broken))[0]


def test_extended_xmp_of_the_sample_is_what_exiftool_expects(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(embed(with_extended_xmp(save("JPEG", xmp=XMP)), CAPTION, "a.jpg"))
    assert exiftool(tmp_path / "a.jpg")["XMP-xmp:Rating"] == 4
