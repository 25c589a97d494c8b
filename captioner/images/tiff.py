"""TIFF files beyond what Pillow reads: wide numbers in colour, and the previews inside camera raws."""

import io
import struct
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin, TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from captioner.errors import ImageError, NoDecoderError
from captioner.images.colour import eight_bits


class Directory(ImageFileDirectory_v2):
    """The fields of an image, also those of a BigTIFF that say where others lie, which Pillow does not know."""

    _load_dispatch = ImageFileDirectory_v2._load_dispatch | {18: ImageFileDirectory_v2._load_dispatch[16]}


Preview = tuple[bytes, int | None]
"""A JPEG, or a TIFF with this image as its first; and the orientation it is to get, if it has none of its own."""
Check = Callable[[int, int], None]
"""Refuses a width and a height that are beyond the limit on pixels."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 259, 262, 274
_STRIPS, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_KIND, _SUB_DIRECTORIES, _EXTRA, _FORMAT, _PROFILE = 254, 330, 338, 339, 34675
_JPEG, _JPEG_BYTES, _DNG_VERSION = 513, 514, 50706
_MOST_DIRECTORIES = 64
_SENSOR = {32803, 34892}  # photometric interpretations: a colour filter array, linear raw
_SHOWN, _MASK, _SMALL = {0, 1, 2, 3, 5, 6, 8}, 4, 1  # not masks and depths; of kinds of images
_RAW_COMPRESSIONS = {32767, 32769, 32770, 34713, 52546, 65000, 65535}
_COMPRESSIONS = {
    6: "old-style JPEG", 9: "JBIG", 10: "JBIG", 32771: "CCITT RLE/W", 32809: "ThunderScan", 33003: "JPEG 2000",
    33004: "JPEG 2000", 33005: "JPEG 2000", 34661: "JBIG", 34676: "SGI LogLuv", 34677: "SGI LogLuv", 34712: "JPEG 2000",
    34887: "LERC", 34892: "lossy JPEG of DNG", 34925: "LZMA", 34933: "PNG", 34934: "JPEG XR", 50000: "Zstandard",
    50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_SMALLEST_PREVIEW = 320  # px, the long side: what is smaller is a thumbnail
_BYTES_PER_PIXEL = 8  # of decoded numbers, for each pixel that the limit allows
_FLIPS = {0: 1, 3: 3, 5: 8, 6: 6}  # LibRaw's turns as orientations of EXIF


def directories(data: bytes) -> list[Directory]:
    """Read the directories of a TIFF, one for each image in it: those in its chain, and those below them."""
    file, head = io.BytesIO(data), data[:16] if b"+" in data[2:4] else data[:8]
    waiting, seen = [Directory(head).next], set[int]()
    found: list[Directory] = []
    while waiting and len(found) < _MOST_DIRECTORIES:
        offset = waiting.pop(0)
        if not offset or offset in seen or offset >= len(data):
            continue
        seen.add(offset)
        directory = Directory(head)
        file.seek(offset)
        with suppress(Exception) if found else nullcontext():  # the first image may be good for all that
            directory.load(file)
        found.append(directory)
        below = directory.get(_SUB_DIRECTORIES, ())
        waiting += [directory.next, *(below if isinstance(below, tuple) else (below,))]
    return found


def largest_preview(data: bytes, name: str, *, tiff: bool) -> Preview | None:
    """Find the largest image inside a camera raw that is an ordinary one.

    Args:
        data: the file.
        name: what messages call it.
        tiff: whether it is a TIFF, which may be none of a camera.

    Returns:
        None if it is no camera raw.

    Raises:
        ImageError: there is nothing in it but a thumbnail.
        NoDecoderError: finding it needs rawpy, which is not installed.
    """
    found: list[tuple[int, int, Preview]] = []
    if data.startswith(b"MM\0+"):
        raise ImageError(f"{name}: a BigTIFF with the high bytes first is not supported", "save it as an ordinary TIFF")
    if tiff:
        parts = directories(data)
        if not parts or not (_is_raw(parts) or data[8:10] == b"CR"):
            return None
        turn = _number(parts[0], _ORIENTATION, 0) or None
        for part in parts:
            with suppress(Exception):  # a preview that is broken is none
                found += _previews(data, part, turn)
        largest = max(_number(part, _WIDTH, 0) * _number(part, _HEIGHT, 0) for part in parts)
        found.sort(key=lambda each: -each[0])
        if found and (found[0][0] >= largest or found[0][1] >= _SMALLEST_PREVIEW):
            return found[0][2]
    preview = _by_libraw(data, name)
    if preview is None:
        raise ImageError(f"{name}: this camera raw holds only a thumbnail", "save it as JPEG first")
    return preview


def _is_raw(parts: list[Directory]) -> bool:
    kinds = {_number(part, _PHOTOMETRIC, 0) for part in parts}
    compressions = {_number(part, _COMPRESSION, 1) for part in parts}
    reduced = len(parts) > 1 and _number(parts[0], _KIND, 0) & _SMALL
    return bool(_DNG_VERSION in parts[0] or kinds & _SENSOR or compressions & _RAW_COMPRESSIONS or reduced)


def _previews(data: bytes, part: Directory, turn: int | None) -> list[tuple[int, int, Preview]]:
    """Pixels, long side and file of the image of a directory, if it is an ordinary one."""
    if _number(part, _PHOTOMETRIC, 0) not in _SHOWN or _number(part, _KIND, 0) & _MASK:
        return []
    start, count = (_JPEG, _JPEG_BYTES) if _JPEG in part else (_STRIPS, _STRIP_BYTES)
    places = part.get(start, ())
    at = places if isinstance(places, int) else places[0] if len(places) == 1 else -1
    if at >= 0 and data[at : at + 2] == b"\xff\xd8":
        inner = data[at : at + _number(part, count, 0)]
        width, height = JpegImagePlugin.JpegImageFile(io.BytesIO(inner)).size
        turn = _number(part, _ORIENTATION, 0) or turn
    else:
        width, height = _number(part, _WIDTH, 0), _number(part, _HEIGHT, 0)
        inner = _alone(data, part.offset)
        turn = None if _ORIENTATION in part else turn
    return [(width * height, max(width, height), (inner, turn))]


def _alone(data: bytes, offset: int) -> bytes:
    """The same file with another directory as its first."""
    order = "<" if data[:2] == b"II" else ">"
    if b"+" in data[2:4]:
        return data[:8] + struct.pack(order + "Q", offset) + data[16:]
    return data[:4] + struct.pack(order + "I", offset) + data[8:]


def _by_libraw(data: bytes, name: str) -> Preview | None:
    try:
        import rawpy
    except ImportError as error:
        raise NoDecoderError(
            f"{name}: the preview inside this camera raw cannot be found without rawpy",
            "run: pip install 'captioner[raw]', or save it as JPEG first",
        ) from error
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            preview, turn = raw.extract_thumb(), _FLIPS.get(raw.sizes.flip, 1)
    except rawpy.LibRawError as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
        raise ImageError(f"{name}: this camera raw cannot be read ({reason})", "save it as JPEG first") from error
    file = io.BytesIO(preview.data if isinstance(preview.data, bytes) else b"")
    if not isinstance(preview.data, bytes):
        Image.fromarray(preview.data).save(file, "BMP")
    with suppress(Exception):
        size = Image.open(file).size
        return (file.getvalue(), turn) if max(size) >= _SMALLEST_PREVIEW else None
    return None


def open_tiff(data: bytes, name: str, check: Check) -> Image.Image:
    """Open the first image of a TIFF, by Pillow where it can, else by its numbers.

    Raises:
        ImageError: its compression or its pixel format is not supported, or it has too many pixels.
        Exception: of any class, because it is broken.
    """
    try:
        image: ImageFile.ImageFile | None = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    except SyntaxError:
        image = None
    part = directories(data)[0] if image is None else image.tag_v2  # type: ignore[attr-defined]
    check(_number(part, _WIDTH, 0), _number(part, _HEIGHT, 0))
    compression = _number(part, _COMPRESSION, 1)
    kind = _COMPRESSIONS.get(compression, f"number {compression}")
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        raise ImageError(f"{name}: the TIFF compression {kind} is not supported", "save it with another one, or as PNG")
    bits, unsigned = _number(part, _BITS, 1), _number(part, _FORMAT, 1) == 1
    plain = unsigned and _number(part, _PHOTOMETRIC, 0) != 0 and _number(part, _PLANAR, 1) == 1
    # Of wider numbers Pillow mixes up planes, the order of bytes, or black and white.
    if image is None or bits > 16 or (bits == 16 and not plain):
        return _by_numbers(data, part, name, check)
    if bits == 12:  # Pillow gives them as they are, in 16 bits
        return _with_details(image.point(lambda value: value * 16), part)
    if compression in _COMPRESSIONS:  # Pillow may be without its decoder, which it says only now.
        try:
            image.load()
        except OSError as error:
            raise ImageError(
                f"{name}: the TIFF compression {kind} is not supported here, or the image is broken",
                "save it with another one, or as PNG",
            ) from error
    return image


def is_part(image: Image.Image) -> bool:
    """Whether a page of a TIFF is no image of its own: another one in small, or a mask."""
    return bool(_number(getattr(image, "tag_v2", {}), _KIND, 0) & (_MASK | _SMALL))


def _by_numbers(data: bytes, part: Directory, name: str, check: Check) -> Image.Image:
    """Read an image of whole bytes a sample: integers or floats, grey, RGB or CMYK, in one plane or several."""
    bits, samples = _number(part, _BITS, 1), _number(part, _SAMPLES, 1)
    photometric, kind = _number(part, _PHOTOMETRIC, 0), {1: "u", 2: "i", 3: "f"}.get(_number(part, _FORMAT, 1), "")
    colours = {0: 1, 1: 1, 2: 3, 5: 4}.get(photometric, 0)
    odd = not colours or samples < colours or f"{kind}{bits}" not in _TYPES or len({*_tuple(part, _BITS)}) > 1
    if odd or _number(part, _COMPRESSION, 1) in (6, 7):
        shape = f"{samples} x {bits} bits, photometric interpretation {photometric}"
        raise ImageError(f"{name}: this pixel format of TIFF ({shape}) is not supported", "save it as PNG first")
    planes = samples if _number(part, _PLANAR, 1) == 2 else 1
    padded = -(-_number(part, _WIDTH, 0) // _block(part)) * _block(part)
    check(padded * max(1, samples * bits // (8 * _BYTES_PER_PIXEL)), _number(part, _HEIGHT, 0))
    dtype = np.dtype(f"{'<' if part.prefix == b'II' else '>'}{kind}{bits // 8}")
    values = np.concatenate([_plane(data, part, dtype, plane, planes) for plane in range(planes)], axis=2)
    shown = eight_bits(values[..., :colours])
    if photometric == 0:
        shown = 255 - shown
    image = Image.fromarray(shown[..., 0] if colours == 1 else shown, {1: "L", 3: "RGB", 4: "CMYK"}[colours])
    extra = _number(part, _EXTRA, 0)
    if samples > colours and extra in (1, 2) and colours < 4:
        top = np.iinfo(dtype).max if kind != "f" else 1.0
        alpha = (np.nan_to_num(values[..., colours] / top).clip(0, 1) * 255).round().astype(np.uint8)
        image = Image.fromarray(np.dstack([np.asarray(image.convert("RGB")), alpha]), "RGBA" if extra == 2 else "RGBa")
        image = image.convert("RGBA")
    return _with_details(image, part)


def _with_details(image: Image.Image, part: Directory) -> Image.Image:
    """An image with the profile and the orientation that its directory names."""
    if _PROFILE in part:
        image.info["icc_profile"] = part[_PROFILE]
    exif = image.getexif()
    exif[_ORIENTATION] = _number(part, _ORIENTATION, 1)
    image.info["exif"] = exif.tobytes()
    return image


_TYPES = {"u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f16", "f32", "f64"}


def _plane(data: bytes, part: Directory, dtype: np.dtype[Any], plane: int, planes: int) -> np.typing.NDArray[Any]:
    """Decode one plane, or the only one: Pillow decompresses its bytes as if they were grey, without predictor.

    Returns:
        ``(height, width, samples of the plane)``.
    """
    width, height = _number(part, _WIDTH, 0), _number(part, _HEIGHT, 0)
    samples = 1 if planes > 1 else _number(part, _SAMPLES, 1)
    tiled, block = _TILES in part, _block(part)
    width_of_tiles = -(-width // block) * block
    row = width_of_tiles * samples * dtype.itemsize
    places, counts = (_tuple(part, tag) for tag in ((_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)))
    share = slice(len(places) // planes * plane, len(places) // planes * (plane + 1))
    grey: dict[int, tuple[int, ...]] = {
        _WIDTH: (row,),
        _HEIGHT: (height,),
        _BITS: (8,),
        _PHOTOMETRIC: (1,),
        _SAMPLES: (1,),
    }
    grey[_COMPRESSION] = (_number(part, _COMPRESSION, 1),)
    if tiled:
        grey[_TILE_WIDTH], grey[_TILE_HEIGHT] = (row * block // width_of_tiles,), (_number(part, _TILE_HEIGHT, 0),)
        grey[_TILES], grey[_TILE_BYTES] = places[share], counts[share]
    else:
        grey[_STRIP_ROWS], grey[_STRIPS] = (_number(part, _STRIP_ROWS, height),), places[share]
        grey[_STRIP_BYTES] = counts[share]
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(_with_directory(data, grey)))
    blocks = np.asarray(image).reshape(height, -1, block, samples, dtype.itemsize)
    predictor = _number(part, _PREDICTOR, 1)
    if predictor == 3:  # bytes of floats, the highest of all samples of a row first
        turned = blocks.reshape(height, -1, block * dtype.itemsize, samples).cumsum(axis=2, dtype=np.uint8)
        turned = turned.reshape(height, -1, dtype.itemsize, block * samples).swapaxes(2, 3)
        values = np.ascontiguousarray(turned).view(dtype.newbyteorder(">"))
    else:
        values = np.ascontiguousarray(blocks).view(dtype)
        if predictor == 2:
            whole = values.view(dtype.str.replace(dtype.kind, "u"))
            sums = whole.reshape(height, -1, block, samples).cumsum(axis=2, dtype=whole.dtype)  # in native order
            values = sums.view(dtype.newbyteorder("="))
    shaped: np.typing.NDArray[Any] = values.reshape(height, -1, samples)
    return shaped[:, :width]


def _block(part: Directory) -> int:
    """Width of a tile or a strip."""
    return _number(part, _TILE_WIDTH, 0) if _TILES in part else _number(part, _WIDTH, 0)


def _with_directory(data: bytes, fields: dict[int, tuple[int, ...]]) -> bytes:
    """The data of a TIFF with one new directory, in a TIFF of the classic kind."""
    at = len(data) + len(data) % 2
    entries, values = struct.pack("<H", len(fields)), b""
    for tag, numbers in sorted(fields.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        place = struct.pack("<I", at + 6 + 12 * len(fields) + len(values))
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + (packed if len(numbers) == 1 else place)
        values += packed if len(numbers) > 1 else b""
    return b"II*\0" + struct.pack("<I", at) + data[8:].ljust(at - 8, b"\0") + entries + bytes(4) + values


def _tuple(part: Directory | dict[int, Any], tag: int) -> tuple[int, ...]:
    value = part.get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def _number(part: Directory | dict[int, Any], tag: int, default: int) -> int:
    """The first number of a field."""
    return int(next(iter(_tuple(part, tag)), default))
