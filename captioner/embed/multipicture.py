"""The index of a JPEG file with several images (MPO, previews, gain maps), which tells where these lie."""

import struct

from captioner.embed.tiff import Tiff

HEAD = b"MPF\0"
_ENTRIES = 0xB002
_ENTRY = "IIIHH"  # attributes, bytes, offset from the index, two numbers of other images
_ENTRY_BYTES = 16


def shifted(segment: bytes, *, first: int, others: int) -> bytes:
    """The index after bytes were added to the first image.

    Args:
        segment: of the index, with its marker.
        first: how many bytes were added in all.
        others: how many of them after the index; the offsets of the other images count from there.

    Raises:
        ValueError: the index is damaged.
    """
    start = segment.index(HEAD) + len(HEAD)
    data = segment[start:]
    index = Tiff(data)
    place, entries = index.span(_ENTRIES)[0], index.value(_ENTRIES)
    if entries is None:
        raise ValueError("its index of images is damaged")
    form = ("<" if data.startswith(b"II") else ">") + _ENTRY
    new = b""
    for entry in range(0, len(entries) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
        attributes, size, offset, *numbers = struct.unpack_from(form, entries, entry)
        is_first = offset == 0
        size, offset = (size + first, 0) if is_first else (size, offset + others)
        new += struct.pack(form, attributes, size, offset, *numbers)
    return segment[:start] + data[:place] + new + data[place + len(new) :]
