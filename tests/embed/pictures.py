"""Image files of all kinds, with and without metadata, and how to see what is in them."""

from __future__ import annotations

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

CAPTION = 'Ein "Café" & <Katzen> \U0001f408.'
XMP = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description r:about="uuid:1&amp;2" '
    b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/><!-- kept --></r:RDF></x:xmpmeta>'
    + b" " * 200
    + b'<?xpacket end="w"?>'
)
NOTE = bytes(range(256)) * 3


def exif() -> Image.Exif:
    """With a turned image, and a maker note."""
    values = Image.Exif()
    values[0x010F], values[0x0112] = "Maker", 6
    values.get_ifd(0x8769)[0x927C] = NOTE
    return values


def save(kind: str, image: Image.Image | None = None, **more: Any) -> bytes:
    data = io.BytesIO()
    (image or noise()).save(data, kind, **more)
    return data.getvalue()


def noise(mode: str = "RGB", seed: int = 0) -> Image.Image:
    size = len(mode) * 24 * 18
    return Image.frombytes(mode, (24, 18), bytes((seed + i * i * 7) % 251 for i in range(size)))


def images() -> dict[str, bytes]:
    rich: dict[str, Any] = {"exif": exif(), "xmp": XMP, "icc_profile": b"profile" * 99}
    return {
        "plain.jpg": save("JPEG"),
        "rich.jpg": save("JPEG", progressive=True, comment=b"Lavc58.134.100", **rich),
        "cmyk.jpg": save("JPEG", noise("CMYK"), exif=exif()),
        "profile.jpg": save("JPEG", icc_profile=bytes(200_000)),
        "extended.jpg": with_extended_xmp(save("JPEG", xmp=XMP)),
        "several.jpg": save("MPO", save_all=True, append_images=[noise(seed=9)], exif=exif()),
        "trailer.jpg": save("JPEG") + b"\xff\xd8 a film, as phones append it",
        "fill.jpg": b"\xff\xd8\xff\xff\xff" + save("JPEG")[3:],
        "plain.png": save("PNG", noise("RGBA")),
        "rich.png": save("PNG", **{name: value for name, value in rich.items() if name != "xmp"}),
        "animated.png": save("PNG", save_all=True, append_images=[noise(seed=9)]),
        "plain.webp": save("WEBP", quality=80),
        "lossless.webp": save("WEBP", noise("RGBA"), lossless=True),
        "rich.webp": save("WEBP", **rich),
        "animated.webp": save("WEBP", save_all=True, append_images=[noise(seed=9)]),
    }


def with_extended_xmp(jpeg: bytes) -> bytes:
    """Add the part of XMP that is too long for one segment."""
    start = jpeg.index(XMP) + len(XMP)
    payload = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + struct.pack(">II", 60_000, 0) + b"x" * 60_000
    return jpeg[:start] + struct.pack(">HH", 0xFFE1, len(payload) + 2) + payload + jpeg[start:]


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    """Add a chunk to a PNG file, behind its first one."""
    return png[:33] + png_chunk(name, content) + png[33:]


def frames(data: bytes) -> list[bytes]:
    """The pixels of all images in a file."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            pixels.append(image.tobytes())
        return pixels


def exiftool(path: Path) -> dict[str, Any]:
    """What exiftool finds, by group and name."""
    if shutil.which("exiftool") is None:
        pytest.skip("needs exiftool: apt-get install libimage-exiftool-perl")
    command = ["exiftool", "-json", "-G1", "-a", "-warning", "-error", "-all", str(path)]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]
    return found
