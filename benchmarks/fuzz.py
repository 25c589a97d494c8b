"""Damaged images: photos in eight formats, spoiled at random as disks, networks and programs spoil files."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

import captioner

SIDE = 400  # pixels of the long side of the photos, so that thousands fit
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "TIFF": "tif", "AVIF": "avif", "HEIC": "heic"}

Spot = tuple[int, int, str]
"""A number in a file: where it begins, how many bytes it has, and ``little`` or ``big``."""


def photos(source: Path, count: int, chance: random.Random) -> list[Image.Image]:
    """Some images of a folder, at most 400 pixels a side."""
    paths = list(captioner.find_images([source]))
    found = [captioner.open_image(path) for path in chance.sample(paths, min(count, len(paths)))]
    for image in found:
        image.thumbnail((SIDE, SIDE))
    return found


def encodings(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    """An image in each format, in several ways; HEIC only where it can be written."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photo"
    other = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    animated = {"save_all": True, "append_images": [other], "duration": 100}
    ways: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("JPEG", image, {"quality": 85, "exif": exif}),
        ("JPEG", image, {"quality": 85, "progressive": True, "icc_profile": b"\0" * 200}),
        ("JPEG", image.convert("L"), {"quality": 50, "restart_marker_rows": 1}),
        ("JPEG", image.convert("CMYK"), {}),
        ("PNG", image, {"exif": exif, "compress_level": 1}),
        ("PNG", image.quantize(64), {"transparency": bytes(range(64))}),
        ("PNG", image.convert("L").convert("I;16"), {}),
        ("PNG", image, animated),
        ("WEBP", image, {"method": 0, "exif": exif}),
        ("WEBP", image.convert("RGBA"), {"lossless": True, "method": 0, "quality": 0}),
        ("WEBP", image, animated | {"method": 0}),
        ("GIF", image.quantize(64), {}),
        ("GIF", image, animated),
        ("TIFF", image, {"exif": exif}),
        ("TIFF", image, {"compression": "tiff_lzw"}),
        ("TIFF", image, {"compression": "tiff_deflate", "big_tiff": True}),
        ("TIFF", image, {"compression": "jpeg"}),
        ("TIFF", image.convert("1"), {"compression": "group4"}),
        ("BMP", image, {}),
        ("BMP", image.quantize(256), {}),
        ("AVIF", image, {"speed": 10}),
        ("AVIF", image, animated | {"speed": 10}),
    ]
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
        ways += [("HEIF", image, {"quality": 50, "exif": exif}), ("HEIF", image, {"save_all": True})]
    except ImportError:
        pass
    for kind, picture, options in ways:
        file = io.BytesIO()
        picture.save(file, kind, **options)
        yield "HEIC" if kind == "HEIF" else kind, file.getvalue()


def numbers(kind: str, data: bytes) -> list[Spot]:
    """Lengths, offsets, counts and sides that a file of this kind states of itself."""
    finders: dict[str, Callable[[bytes], Iterator[Spot]]] = {
        "JPEG": _jpeg, "PNG": _png, "WEBP": _riff, "GIF": _gif, "TIFF": _tiff, "AVIF": _boxes, "HEIC": _boxes,
        "BMP": lambda data: ((at, 4, "little") for at in (2, 10, 14, 18, 22, 30, 34, 46)),
    }  # fmt: skip
    return list(finders[kind](data))


def _jpeg(data: bytes) -> Iterator[Spot]:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        yield at + 2, 2, "big"
        if data[at + 1] in (0xC0, 0xC1, 0xC2):
            yield from ((at + 5, 2, "big"), (at + 7, 2, "big"), (at + 9, 1, "big"), (at + 11, 1, "big"))
        if data[at + 1] == 0xDA:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _png(data: bytes) -> Iterator[Spot]:
    at = 8
    while at + 8 <= len(data):
        yield at, 4, "big"
        if data[at + 4 : at + 8] in (b"IHDR", b"acTL", b"fcTL"):
            yield from ((at + place, 4, "big") for place in (8, 12))
        if data[at + 4 : at + 8] == b"IHDR":
            yield from ((at + place, 1, "big") for place in (16, 17, 20))
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _riff(data: bytes) -> Iterator[Spot]:
    yield 4, 4, "little"
    at = 12
    while at + 8 <= len(data):
        yield at + 4, 4, "little"
        yield from ((at + 8 + place, 3, "little") for place in (0, 4, 6, 9))
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2


def _gif(data: bytes) -> Iterator[Spot]:
    yield from ((at, 2, "little") for at in (6, 8))
    yield 10, 1, "little"
    start = data.find(b"\x2c")
    while start >= 0 and start < len(data) - 10:
        yield from ((start + place, 2, "little") for place in (1, 3, 5, 7))
        yield from ((start + 9, 1, "little"), (start + 10, 1, "little"))
        start = data.find(b"\0\x2c", start + 1000)


def _tiff(data: bytes) -> Iterator[Spot]:
    order = "little" if data[:2] == b"II" else "big"
    wide = data[2] == 43 or data[3] == 43
    first, each, size = (8, 20, 8) if wide else (4, 12, 4)
    yield first, size, order
    at = int.from_bytes(data[first : first + size], order)  # type: ignore[arg-type]
    count_size = 8 if wide else 2
    yield at, count_size, order
    entries = int.from_bytes(data[at : at + count_size], order)  # type: ignore[arg-type]
    for entry in range(min(entries, len(data) // each)):
        place = at + count_size + each * entry
        yield from ((place, 2, order), (place + 2, 2, order), (place + 4, size, order))
        yield place + 4 + size, size, order


def _boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Spot]:
    at, end = start, len(data) if end is None else min(end, len(data))
    while at + 8 <= end:
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        yield at, 4, "big"
        if kind in (b"ispe", b"iloc", b"pitm", b"iinf", b"stsz", b"stco", b"tkhd", b"av1C", b"hvcC"):
            yield from ((at + place, 4, "big") for place in range(12, min(size, 64) - 4, 4))
        inside = {b"meta": 12, b"iprp": 8, b"ipco": 8, b"moov": 8, b"trak": 8, b"mdia": 8, b"minf": 8, b"stbl": 8}
        if kind in inside:
            yield from _boxes(data, at + inside[kind], at + size)
        at += max(8, size)


def damaged(kind: str, data: bytes, others: list[bytes], chance: random.Random) -> tuple[str, bytes]:
    """Spoil a file in one to three ways.

    Args:
        kind: its format.
        data: the file.
        others: files of the same format.
        chance: decides.

    Returns:
        In which ways, and a file that differs.
    """
    ways = {"flip": _flip, "cut": _cut, "swap": _swap, "hole": _hole, "splice": _splice, "length": _length}
    spoiled, names = data, []
    while spoiled == data or (len(names) < 3 and chance.random() < 0.3):
        name = chance.choice([*ways, "length", "flip"])
        spoiled = ways[name](kind, spoiled, others, chance)
        names.append(name)
    return "+".join(names), spoiled


def _flip(kind: str, data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Other bits: some in the head, where they do the most, or anywhere."""
    spoiled = bytearray(data)
    reach = min(len(data), chance.choice([64, 1024, len(data)]))
    for _ in range(chance.choice([1, 1, 4, 32, 256]) if reach else 0):
        spoiled[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    return _sealed(bytes(spoiled)) if kind == "PNG" and chance.random() < 0.7 else bytes(spoiled)


def _cut(kind: str, data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """The end is missing, as after a broken copy; what is missing may be filled up with zeros."""
    place = chance.randrange(len(data) + 1)
    return data[:place] + bytes(len(data) - place) * (chance.random() < 0.3)


def _swap(kind: str, data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Two segments in each other's place."""
    a, b, c = sorted(chance.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _hole(kind: str, data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """A block of the disk is lost: zeros, noise or nothing in its place."""
    size = chance.choice([1, 16, 512, 4096])
    place = chance.randrange(len(data) + 1) // size * size
    return data[:place] + chance.choice([bytes(size), chance.randbytes(size), b""]) + data[place + size :]


def _splice(kind: str, data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """The head of one file before the rest of another, as after a file system's repair."""
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.choice(others)[place:]


def _length(kind: str, data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """A number in the head that is wrong: extreme, or off by little."""
    try:
        spots = [spot for spot in numbers(kind, data) if spot[0] + spot[1] <= len(data)]
    except (IndexError, struct.error):
        spots = []
    if not spots:
        return data
    at, size, order = chance.choice(spots)
    before = int.from_bytes(data[at : at + size], order)  # type: ignore[arg-type]
    value = chance.choice([*EXTREMES, before + 1, before - 1, 2 * before, 16 * before, before ^ 0x100])
    spoiled = data[:at] + (value % 256**size).to_bytes(size, order) + data[at + size :]  # type: ignore[arg-type]
    return _sealed(spoiled) if kind == "PNG" and chance.random() < 0.7 else spoiled


def _sealed(data: bytes) -> bytes:
    """A PNG with right check sums, so that what is wrong in it reaches the decoder."""
    spoiled, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        spoiled[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(spoiled)


def make_damaged(folder: Path, count: int, source: Path, seed: int, *, pool: int = 16) -> int:
    """Write damaged images into a folder; how many bytes they have.

    Args:
        folder: made; a sub-folder for each thousand.
        count: how many.
        source: a folder of photos.
        seed: the same seed, the same files.
        pool: photos that they are made from.
    """
    chance = random.Random(seed)
    whole: dict[str, list[bytes]] = {}
    for image in photos(source, pool, chance):
        for kind, data in encodings(image):
            whole.setdefault(kind, []).append(data)
    kinds, size = sorted(whole), 0
    for number in range(count):
        kind = kinds[number % len(kinds)]
        way, data = damaged(kind, chance.choice(whole[kind]), whole[kind], chance)
        path = folder / f"{number // 1000:03}" / f"{number:06}-{way}.{ENDINGS.get(kind, kind.lower())}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        size += len(data)
    return size
