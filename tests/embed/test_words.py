"""What a person has written is kept, wherever it stands; what cameras and programs write is known."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioner.embed.authors import Author, author_of
from captioner.embed.embedding import ALT_TEXT, embed, read_fields
from captioner.embed.iptc import Iptc
from tests.embed.pictures import CAPTION, png_chunk, save, with_chunk

HUMAN = "Grandma in her kitchen, 1987"
LETTERS = "Großmutter in der Küche"
CHINESE = "外婆在厨房"


def exif(**fields: Any) -> bytes:
    """A JPEG with texts in EXIF: ``description``, ``xp_comment``, ``user_comment``."""
    values = Image.Exif()
    values[0x010F] = "Maker"
    for name, tag in (("description", 0x010E), ("xp_comment", 0x9C9C)):
        if name in fields:
            values[tag] = fields[name]
    if "user_comment" in fields:
        values.get_ifd(0x8769)[0x9286] = fields["user_comment"]
    return save("JPEG", exif=values)


def segment(jpeg: bytes, code: int, payload: bytes) -> bytes:
    """A JPEG with one more segment, behind its first one."""
    return jpeg[:20] + struct.pack(">HH", 0xFF00 + code, len(payload) + 2) + payload + jpeg[20:]


def resources(iim: bytes, digest: bytes | None = None) -> bytes:
    found = [(0x0404, iim)] + ([] if digest is None else [(0x0425, digest)])
    return b"".join(
        b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + bytes(len(data) % 2) for number, data in found
    )


def iim(*values: tuple[int, int, bytes]) -> bytes:
    return b"".join(struct.pack(">BBBH", 0x1C, record, number, len(data)) + data for record, number, data in values)


def press(data: bytes) -> bytes:
    """A JPEG with resources of Photoshop."""
    return segment(save("JPEG"), 0xED, b"Photoshop 3.0\0" + data)


def xmp(inside: str = "", attributes: str = "", more: str = "") -> bytes:
    spaces = (
        'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:i="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/" '
        'xmlns:acdsee="http://ns.acdsee.com/iptc/1.0/"'
    )
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {spaces} {attributes}>{inside}</rdf:Description>{more}</rdf:RDF></x:xmpmeta>'
    ).encode()


def described(*items: str, name: str = "dc:description", kind: str = "Alt") -> str:
    return f"<{name}><rdf:{kind}>{''.join(items)}</rdf:{kind}></{name}>"


def item(language: str, text: str) -> str:
    return f'<rdf:li xml:lang="{language}">{text}</rdf:li>' if language else f"<rdf:li>{text}</rdf:li>"


def long_xmp(packet: bytes) -> bytes:
    """A JPEG whose packet goes on in two other segments."""
    digest = hashlib.md5(packet).hexdigest().upper()
    note = f'xmlns:n="http://ns.adobe.com/xmp/note/" n:HasExtendedXMP="{digest}"'
    data = segment(save("JPEG"), 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(attributes=note))
    at = data.index(b"</x:xmpmeta>") + len(b"</x:xmpmeta>")
    for start, end in ((len(packet) // 2, len(packet)), (0, len(packet) // 2)):  # not in order
        payload = b"http://ns.adobe.com/xmp/extension/\0" + digest.encode()
        payload += struct.pack(">II", len(packet), start) + packet[start:end]
        data = data[:at] + struct.pack(">HH", 0xFFE1, len(payload) + 2) + payload + data[at:]
    return data


def profile(kind: str, data: bytes) -> bytes:
    """A PNG with metadata in hexadecimal digits, as ImageMagick writes them."""
    digits = data.hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    text = f"\n{kind}\n{len(data):8}\n{lines}\n".encode()
    return with_chunk(save("PNG"), b"zTXt", f"Raw profile type {kind}".encode() + b"\0\0" + zlib.compress(text))


def png_text(keyword: bytes, text: str) -> dict[str, bytes]:
    latin, unicode = text.encode("latin-1"), text.encode()
    chunks = {
        "tEXt": keyword + b"\0" + latin,
        "zTXt": keyword + b"\0\0" + zlib.compress(latin),
        "iTXt": keyword + b"\0\0\0de\0Wort\0" + unicode,
        "packed iTXt": keyword + b"\0\1\0\0\0" + zlib.compress(unicode),
    }
    return {
        f"{keyword.decode()} {name}": with_chunk(save("PNG"), name[-4:].encode(), data) for name, data in chunks.items()
    }


OF_EXIF = {
    "ascii": exif(user_comment=b"ASCII\0\0\0" + HUMAN.encode() + b"\0\0  "),
    "little": exif(user_comment=b"UNICODE\0" + HUMAN.encode("utf-16-le")),
    "big": exif(user_comment=b"UNICODE\0" + HUMAN.encode("utf-16-be")),
    "marked": exif(user_comment=b"UNICODE\0" + HUMAN.encode("utf-16")),
    "undefined": exif(user_comment=bytes(8) + HUMAN.encode()),
    "no prefix": exif(user_comment=HUMAN.encode()),
    "xp": exif(xp_comment=(HUMAN + "\0").encode("utf-16-le")),
    "description": exif(description=HUMAN),
}
OF_XMP = {
    "empty default": xmp(described(item("x-default", ""), item("de-DE", HUMAN))),
    "empty default last": xmp(described(item("en", HUMAN), item("x-default", ""))),
    "first empty": xmp(described(item("en-US", ""), item("fr", HUMAN))),
    "only french": xmp(described(item("fr-FR", HUMAN))),
    "camera in default": xmp(described(item("x-default", "SONY DSC"), item("en", HUMAN))),
    "no language": xmp(described(item("", HUMAN))),
    "bag": xmp(described(item("", ""), item("", HUMAN), kind="Bag")),
    "seq": xmp(described(item("", HUMAN), kind="Seq")),
    "value": xmp(f'<dc:description rdf:parseType="Resource"><rdf:value>{HUMAN}</rdf:value></dc:description>'),
    "plain": xmp(f"<dc:description>{HUMAN}</dc:description>"),
    "attribute": xmp(attributes=f'dc:description="{HUMAN}"'),
    "attribute and empty": xmp("<dc:description/>", f'dc:description="{HUMAN}"'),
    "second empty": xmp(
        described(item("x-default", HUMAN)),
        more='<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description/></rdf:Description>',
    ),
    "tiff": xmp(described(item("x-default", HUMAN), name="tiff:ImageDescription")),
    "exif": xmp(described(item("x-default", HUMAN), name="exif:UserComment")),
    "acdsee": xmp(f"<acdsee:caption>{HUMAN}</acdsee:caption>"),
    "digiKam": xmp(attributes=f'acdsee:notes="{HUMAN}"'),
}
OTHERS = {
    "comment": segment(save("JPEG"), 0xFE, HUMAN.encode()),
    "second comment": segment(segment(save("JPEG"), 0xFE, HUMAN.encode()), 0xFE, b"Lavc58.134.100"),
    "iptc": press(resources(iim((2, 120, HUMAN.encode())))),
    "iptc behind others": press(b"8BIM\x03\xed\0\0\0\0\0\2ab" + resources(iim((2, 5, b"x"), (2, 120, HUMAN.encode())))),
    "iptc in two": segment(press(b"UP"), 0xED, b"Photoshop 3.0\0" + resources(iim((2, 120, HUMAN.encode())))),
    "long xmp": long_xmp(OF_XMP["only french"]),
    "two packets": segment(save("JPEG", xmp=xmp()), 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + OF_XMP["empty default"]),
    "xmp.png": with_chunk(save("PNG"), b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + OF_XMP["empty default"]),
    "xmp.webp": save("WEBP", xmp=OF_XMP["empty default"]),
    "raw xmp": profile("xmp", OF_XMP["only french"]),
    "raw xmp of app1": profile("APP1", b"http://ns.adobe.com/xap/1.0/\0" + OF_XMP["only french"]),
    "raw exif": profile("exif", b"Exif\0\0" + Image.open(io.BytesIO(OF_EXIF["little"])).getexif().tobytes()[6:]),
    "raw iptc": profile("iptc", iim((2, 120, HUMAN.encode()))),
    "raw 8bim": profile("8bim", resources(iim((2, 120, HUMAN.encode())))),
    **png_text(b"Description", HUMAN),
    **png_text(b"comment", HUMAN),
}
PEOPLES = OF_EXIF | {f"xmp {name}": save("JPEG", xmp=packet) for name, packet in OF_XMP.items()} | OTHERS


def fields(data: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, text, _ in read_fields(io.BytesIO(data), "picture"):
        found.setdefault(name, []).append(text)
    return found


@pytest.mark.parametrize("name", PEOPLES)
def test_a_persons_words_stay_and_nothing_is_written_over_or_beside_them(name: str) -> None:
    before = PEOPLES[name]
    after = embed(before, CAPTION, name)
    found = fields(after)
    assert {*found.pop(ALT_TEXT)} == {CAPTION}
    assert found == fields(before)  # which has no alt text
    assert any(HUMAN in texts for texts in found.values())
    assert embed(after, "another", name) == after
    assert {*fields(embed(after, "another", name, own=CAPTION))[ALT_TEXT]} == {"another"}
    assert after.count(b"<x:xmpmeta") == max(before.count(b"<x:xmpmeta"), 1)


@pytest.mark.parametrize("name", PEOPLES)
def test_with_overwrite_every_field_says_the_same(name: str) -> None:
    after = embed(PEOPLES[name], CAPTION, name, overwrite=True)
    found = fields(after)
    texts = {text for each in found.values() for text in each}
    assert texts - {"SONY DSC", "Lavc58.134.100"} == {CAPTION}
    assert {"EXIF ImageDescription", "XMP dc:description", ALT_TEXT, *fields(PEOPLES[name])} == found.keys()
    assert HUMAN.encode() not in after
    assert HUMAN.encode("utf-16-le") not in after
    again = embed(embed(after, "x" * 200, name, overwrite=True), CAPTION, name, overwrite=True)
    assert fields(again) == found
    assert embed(again, CAPTION, name, overwrite=True) == again


@pytest.mark.parametrize("text", [HUMAN, LETTERS, CHINESE])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_user_comments_are_read_in_either_order_of_bytes(text: str, order: str, encoding: str) -> None:
    values = Image.Exif()
    values.endian = order
    values.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode(encoding)
    assert fields(save("JPEG", exif=values)) == {"EXIF UserComment": [text]}
    japanese = exif(user_comment=b"JIS\0\0\0\0\0" + "東京タワー".encode("iso2022_jp"))
    assert fields(japanese) == {"EXIF UserComment": ["東京タワー"]}


@pytest.mark.parametrize(
    "comment", [b"", bytes(200), b"ASCII\0\0\0" + b" " * 100, bytes(8) + bytes(range(1, 32)) * 9, b"UNICODE\0\xff\xff"]
)
def test_empty_comments_and_numbers_are_no_description(comment: bytes) -> None:
    assert set(fields(embed(exif(user_comment=comment), CAPTION, "picture"))) == {
        *("EXIF ImageDescription", "XMP dc:description", ALT_TEXT)
    }


@pytest.mark.parametrize(
    ("text", "author"),
    [
        ("My father with his first digital camera", Author.PERSON),
        ("A shelf of books.\nNext to it an old digital camera", Author.PERSON),
        ("DCIM/ folder of our trip to Rome, day 2", Author.PERSON),
        ("Default", Author.PERSON),
        ("My beautiful picture", Author.PERSON),
        ("Samsung camera pictures of our trip", Author.PERSON),
        ("Dave", Author.PERSON),
        ("My Digital Camera", Author.PERSON),
        ("OLYMPUS DIGITAL CAMERA         ", Author.MAKER),
        ("SONY DSC\0\0", Author.MAKER),
        ("kodak digital still camera", Author.MAKER),
        ("<KENOX S1050  / Samsung S1050>", Author.MAKER),
        ("<Digimax i5, Samsung #1>", Author.MAKER),
        ("DCIM\\100MEDIA\\DJI_0001.JPG", Author.MAKER),
        ("DCIM/PANORAMA/101_0586/PANO0001.JPG", Author.MAKER),
        ("oznorCO", Author.MAKER),
        ("dav", Author.MAKER),
        ("oplus_1048864", Author.MAKER),
        ("charset=Ascii", Author.MAKER),
        ("Processed with VSCO with c1 preset", Author.MAKER),
        ("Processed with VSCO and Layout", Author.PERSON),
        ("CREATOR: gd-jpeg v1.0 (using IJG JPEG v62), quality = 90\n", Author.PROGRAM),
        ("CREATOR: gd-jpeg v1.0 (using IJG JPEG v80), default quality\n", Author.PROGRAM),
        ("Lavc58.134.100", Author.PROGRAM),
        ("cmp3.10.3.2Lq3 0x756ffbf7", Author.PROGRAM),
        ("Creator: PolyView\u00ae Version 4.37 by Polybytes\r\nQuality: 100", Author.PROGRAM),
        ("CREATOR: XV Version 3.10a  Rev: 12/29/94 (PNG patch 1.2)  Quality = 95, Smoothing = 0\n", Author.PROGRAM),
        ("Created with GIMP", Author.PROGRAM),
        ("Intel(R) JPEG Library, version [1.51.12.44]", Author.PROGRAM),
        ("Created with GIMP by my daughter", Author.PERSON),
        ('{"shape": [3, 16, 16]}', Author.MAKER),
        ('{"shape": [1024, 1024], "axes": "YX"}', Author.MAKER),
        ('{"shape": [16, 16], "note": "My father in the garden"}', Author.PERSON),
        ("shape=(3, 16, 16)", Author.MAKER),
        ("ImageJ=1.53t\nimages=3\nchannels=3\nmode=composite\nunit=\\u00B5m\nloop=false\nmin=0.0\n", Author.MAKER),
        ("ImageJ=1.53t\nimages=3\nMy father, slices=2\n", Author.PERSON),
        ("ImageJ is what I used for this image", Author.PERSON),
        ('<?xml version="1.0"?><OME><Image><Description>A cell</Description></Image></OME>', Author.PERSON),
    ],
)
def test_makers_and_programs_are_known_by_whole_texts(text: str, author: Author) -> None:
    assert author_of(text, comment=True) is author
    if author is Author.PERSON:
        assert author_of(text, comment=False) is author


@pytest.mark.parametrize(
    "data",
    [
        exif(description="SAMSUNG CAMERA PICTURES"),
        save("JPEG", xmp=xmp(described(item("x-default", "OLYMPUS DIGITAL CAMERA         ")))),
        press(resources(iim((2, 120, b"SONY DSC")))),
        save("PNG", xmp=xmp(described(item("de", "dav"), name="tiff:ImageDescription"))),
        next(iter(png_text(b"Description", "oznorCO").values())),
    ],
)
def test_a_makers_words_are_replaced_wherever_they_stand(data: bytes) -> None:
    assert {text for each in fields(embed(data, CAPTION, "picture")).values() for text in each} == {CAPTION}


def test_a_programs_signature_stays_and_is_no_description() -> None:
    signature = "CREATOR: gd-jpeg v1.0 (using IJG JPEG v62), quality = 90"
    before = segment(save("JPEG"), 0xFE, signature.encode() + b"\n")
    for overwrite in (False, True):
        after = fields(embed(before, CAPTION, "picture", overwrite=overwrite))
        assert after.pop("JPEG comment") == [signature]
        assert {text for each in after.values() for text in each} == {CAPTION}


def test_iptc_is_written_where_it_is_or_asked_for_and_its_digest_follows() -> None:
    assert b"Photoshop 3.0" not in embed(save("JPEG"), CAPTION, "picture")
    asked = embed(save("JPEG"), CAPTION, "picture", iptc=True)
    assert fields(asked)["IPTC Caption-Abstract"] == [CAPTION]
    assert embed(save("PNG"), CAPTION, "picture", iptc=True) == embed(save("PNG"), CAPTION, "picture")
    keywords = iim((2, 25, b"lake"), (2, 25, b"boat"))
    right, stale = hashlib.md5(keywords).digest(), bytes(16)
    for digest, is_stale in ((right, False), (stale, True), (None, False)):
        after = Iptc(_resources_in(embed(press(resources(keywords, digest)), "A boat.", "picture")))
        assert (after.caption(), after.is_stale) == ("A boat.", is_stale)
    only_alt = embed(press(resources(iim((2, 120, HUMAN.encode())), right)), CAPTION, "picture", iptc=True)
    assert fields(only_alt)["IPTC Caption-Abstract"] == [HUMAN]


def _resources_in(jpeg: bytes) -> bytes:
    at = jpeg.index(b"Photoshop 3.0\0")
    (length,) = struct.unpack(">H", jpeg[at - 2 : at])
    return jpeg[at + 14 : at - 2 + length]


def test_iptc_in_other_character_sets() -> None:
    marked = iim((1, 90, b"\x1b%G"), (2, 120, LETTERS.encode()))
    assert Iptc(marked).caption() == Iptc(iim((2, 120, LETTERS.encode("latin-1")))).caption() == LETTERS
    assert Iptc(iim((2, 120, LETTERS.encode()))).caption() == LETTERS  # UTF-8 that nobody has marked
    place = iim((2, 0, b"\0\2"), (2, 90, "Zürich".encode("latin-1")))
    kept, turned = Iptc(place).with_caption("A boat."), Iptc(place).with_caption(CHINESE)
    assert "Zürich".encode("latin-1") in kept
    assert turned == iim((1, 90, b"\x1b%G"), (2, 0, b"\0\2"), (2, 90, "Zürich".encode()), (2, 120, CHINESE.encode()))
    damaged = iim((2, 120, HUMAN.encode())) + b"\x1c\x02\x19\x00\xff"
    assert Iptc(damaged).caption() == HUMAN
    with pytest.raises(ValueError, match="its IPTC is damaged"):
        Iptc(damaged).with_caption(CAPTION)


def test_two_packets_of_older_versions_in_a_png_agree_again() -> None:
    """A raw profile with a rating, and beside it a chunk that captioner has once added."""
    both = profile(
        "xmp", xmp(attributes='xmlns:x="http://ns.adobe.com/xap/1.0/" x:Rating="4"', inside="<dc:description/>")
    )
    both = (
        both[:33] + png_chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp(described(item("de", "old")))) + both[33:]
    )
    after = embed(both, CAPTION, "picture", overwrite=True)
    assert {text for each in fields(after).values() for text in each} == {CAPTION}
    assert b"Raw profile type xmp" in after


def test_exiftool_and_exiv2_agree_on_what_is_written(tmp_path: Path) -> None:
    if shutil.which("exiftool") is None:
        pytest.skip("needs exiftool: apt-get install libimage-exiftool-perl")
    caption = "Ein 'Café' & <Katzen>."
    for number, (name, data) in enumerate(PEOPLES.items()):
        ending = "png" if data.startswith(b"\x89") else "webp" if data.startswith(b"RIFF") else "jpg"
        (tmp_path / f"{number} {name}.{ending}").write_bytes(embed(data, caption, name, overwrite=True, iptc=True))
    tags = ["Description", "ImageDescription", "UserComment", "Comment", "XPComment", "Caption-Abstract", "Caption"]
    command = ["exiftool", "-json", "-G1", "-a", "-q", "-warning", "-error", "-IPTCDigest", "-CurrentIPTCDigest"]
    command += ["-XMP-iptcCore:AltTextAccessibility", *(f"-{tag}" for tag in tags), str(tmp_path)]
    out = subprocess.run(command, capture_output=True, check=False).stdout
    files = json.loads(out)
    assert len(files) == len(PEOPLES)
    for file in files:
        name = Path(file.pop("SourceFile")).name
        assert not [key for key in file if key == "ExifTool:Error"], (name, file)
        assert file.pop("Photoshop:IPTCDigest", None) == file.pop("File:CurrentIPTCDigest", None) or "iptc" in name
        said = {key: value for key, value in file.items() if key != "ExifTool:Warning"}
        assert {*said.values()} <= {caption, "Lavc58.134.100"}, (name, said)
        assert {"IFD0:ImageDescription", "XMP-dc:Description", "XMP-iptcCore:AltTextAccessibility"} <= said.keys(), name
