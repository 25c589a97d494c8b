from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captioner.embed.tiff import EMPTY, IMAGE_DESCRIPTION, Tiff

FIELDS = st.dictionaries(
    st.integers(0x0100, 0x0200).filter(lambda tag: tag != IMAGE_DESCRIPTION),
    st.binary(min_size=1, max_size=9),
)


def structure(order: str, fields: dict[int, bytes]) -> bytes:
    """A directory of byte strings; those longer than four bytes lie behind it."""
    data = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, len(fields))
    after, values = len(data) + 12 * len(fields) + 4, b""
    for tag, value in sorted(fields.items()):
        data += struct.pack(order + "HHI", tag, 7, len(value))
        if len(value) <= 4:
            data += value.ljust(4, b"\0")
        else:
            data += struct.pack(order + "I", after + len(values))
            values += value
    return data + struct.pack(order + "I", 0) + values


@settings(deadline=None)
@given(
    st.sampled_from("<>"),
    FIELDS,
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1),
)
def test_texts_are_set_and_everything_else_stays_where_it_is(
    order: str, fields: dict[int, bytes], texts: list[str]
) -> None:
    before = structure(order, fields)
    data = before
    for text in texts:
        data = Tiff(data).with_text(IMAGE_DESCRIPTION, text)
        assert Tiff(data).text(IMAGE_DESCRIPTION) == text
        assert {tag: Tiff(data).value(tag) for tag in fields} == fields
        assert data[8 : len(before)] == before[8:]
        length = len(text.encode()) + 1
        moved = 2 + 12 * (len(fields) + 1) + 4
        assert len(data) <= len(before) + moved + 2 + (length if length > 4 else 0)
    start = struct.unpack_from(order + "I", data, 4)[0]
    tags = [struct.unpack_from(order + "H", data, start + 2 + 12 * i)[0] for i in range(len(fields) + 1)]
    assert tags == sorted({*fields, IMAGE_DESCRIPTION})
    found = Image.Exif()
    found.load(b"Exif\0\0" + data)
    assert found[IMAGE_DESCRIPTION].encode("latin-1").decode() == texts[-1]


def test_texts_that_are_not_utf8() -> None:
    data = structure("<", {IMAGE_DESCRIPTION: "Café, très".encode("latin-1") + b"\0rest"})
    assert Tiff(data).text(IMAGE_DESCRIPTION) == "Café, très"
    assert Tiff(EMPTY).text(IMAGE_DESCRIPTION) == ""


@pytest.mark.parametrize(
    "damaged", [b"", b"II*\0", b"XX*\0" + bytes(20), b"II*\0\xff\0\0\0", b"II*\0\x08\0\0\0\x05\0" + bytes(20)]
)
def test_what_is_no_tiff_is_refused(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="its EXIF is damaged"):
        Tiff(damaged)


def test_a_value_that_points_to_nowhere_is_none() -> None:
    data = structure("<", {IMAGE_DESCRIPTION: b"a long text"})[:-3]
    assert Tiff(data).text(IMAGE_DESCRIPTION) == ""
    assert Tiff(Tiff(data).with_text(IMAGE_DESCRIPTION, "another text")).text(IMAGE_DESCRIPTION) == "another text"
