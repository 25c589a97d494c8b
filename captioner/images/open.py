"""Open an image: any common file becomes an upright sRGB image, or one clear error.

The format is detected from the file's first bytes, never from its name, and only the formats listed here are
tried: a hostile file cannot reach the decoders of rarer formats.
"""

import hashlib
import io
import os
import random
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from captioner import tars
from captioner.errors import ImageError, NoDecoderError, TooManyPixelsError
from captioner.images import colour, large, tiff

Source = str | os.PathLike[str] | bytes | BinaryIO
Box = tuple[float, float, float, float]
"""Left, upper, right and lower end of a part of an image, in pixels."""

DEFAULT_MAX_PIXELS = 100_000_000
READING = 3
"""Raised whenever a file gives other pixels than before, so that what was computed of the earlier ones is not used."""
_FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC, JPEG XL, camera raw"
_PLUGINS = {"JPEG": "Jpeg", "PNG": "Png", "WebP": "WebP", "GIF": "Gif", "BMP": "Bmp", "AVIF": "Avif"}
_EXTRAS = {  # module and class of a plugin outside Pillow, and the extra that brings it
    "HEIC": ("pillow_heif", "HeifImageFile", "heif"),
    "JPEG XL": ("pillow_jxl.JpegXLImagePlugin", "JXLImageFile", "jxl"),
}
_OF_SEVERAL = {"PNG", "WebP", "GIF", "AVIF", "TIFF"}
_MOST_FRAMES = 256
_FLAT = 16  # a frame whose values, of 255, are no farther apart shows nothing
_JXL_BOX = b"\0\0\0\x0cJXL \r\n\x87\n"
_RAW_HEADS = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"II\x1a\0\0\0HEAPCCDR", b"\0MRM")
_END = b"\xff\xd9"  # of a JPEG
_FRAME, _SCAN = re.compile(rb"\xff[\xc0-\xc2]\0[\x0b\x11\x14]\x08"), re.compile(rb"\xff\xda\0[\x08-\x10]")
_HEAD_BYTES = 512
# A file may be this much longer than its header suggests: 8 bytes for each pixel (16-bit RGBA) that the
# limit allows, and room for profiles, thumbnails and metadata.
_BYTES_PER_PIXEL, _METADATA_BYTES = 8, 64 * 2**20
_CHUNK_BYTES = 2**20
# How much longer than needed the short side of a JPEG decoded at reduced scale is at least. Measured on
# images preprocessed to 260 x 260: with 4, pixels of 4000 x 3000 differ by 0.1 of 255 on average from a
# full decode, and all of 48 images enlarged fourfold keep their caption. With 2 they differ by 0.21 and
# reading gains twice as much (8 times as fast as in full), but 5 of the 48 captions change.
_DRAFT_MARGIN = 4
_FEW_PIXELS, _HOLLOW_BYTES = 2**22, 150_000_000  # So many take little memory; what a nearly empty file may take.
_ORIENTATION = 0x0112  # the EXIF tag
_TRANSPOSE: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTERS = (Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90)
_WARNINGS_LOCK = threading.Lock()


def open_image(source: Source, *, max_pixels: int = DEFAULT_MAX_PIXELS, min_size: int | None = None) -> Image.Image:
    """Open an image as RGB, upright, in sRGB.

    EXIF orientation and the embedded colour profile are applied. Transparency is laid over white, or over black
    where the drawing would not be seen on white. 16-bit and floating-point numbers are scaled to 8 bits. Of an
    animation the first frame is taken that shows something, of a camera raw the largest preview.

    Args:
        source: A path, the bytes of an image file, or a binary file object. A seekable file object is read
            from its start and left where it was, any other is read to its end; neither is closed.
        max_pixels: Width times height above which an image is refused, before it is decoded.
        min_size: The side in pixels of the square that the image is wanted for. A JPEG whose sides are
            both much longer is decoded at a half, a quarter or an eighth of its size, which is faster, and a
            PNG of more than 16 million pixels is averaged in strips, which takes less memory; the short side
            stays at least four times `min_size`.

    Returns:
        An image of mode "RGB" that needs no open file, and has no metadata that would turn it again.

    Raises:
        ImageError: The image is absent, unreadable, empty, broken, too large, or of an unknown format.
    """
    return open_reduced(source, max_pixels=max_pixels, min_size=min_size)[0]


def open_reduced(
    source: Source, *, max_pixels: int, min_size: int | None, max_bytes: float = float("inf")
) -> tuple[Image.Image, Box]:
    """Open an image as `open_image` does, and say where in it the picture lies.

    An image is refused that would take more than `max_bytes` of memory while it is decoded. A JPEG that is not
    progressive and a PNG of 8 bits take little where they are much larger than `min_size`.

    Returns:
        The image; and left, upper, right and lower end of the picture in it. A JPEG decoded at reduced scale
        may end within its last column or row.

    Raises:
        ImageError: As `open_image`.
    """
    name = display_name(source)
    data = read_file(source, max_pixels=max_pixels)
    kind, turn = identify(data, name), None
    try:
        if kind in ("TIFF", "camera raw"):
            with _muted_warnings():
                preview = tiff.largest_preview(data, name, tiff=kind == "TIFF")
            if preview is not None:
                data, turn = preview
                kind = identify(data, name)
        image = _parsed(data, kind, name, max_pixels)
        if image.width * image.height <= _FEW_PIXELS:
            return _finished(image, data, kind, turn, max_pixels, min_size)
        needed = large.bytes_needed(image, data, kind, min_size and _DRAFT_MARGIN * min_size)
        hollow = large.is_hollow(image, data)
        if needed > min(max_bytes, _HOLLOW_BYTES if hollow else max_bytes):
            raise TooManyPixelsError(
                f"{name}: {image.width} x {image.height} pixels as {kind} take too much memory", large.ADVICE
            )
        with large.room_for(needed):
            return _finished(image, data, kind, turn, max_pixels, min_size)
    except ImageError:
        raise
    except Exception as error:  # Decoders fail on broken files with nearly every class of exception.
        reason = printable(str(error)) or type(error).__name__
        raise ImageError(f"{name}: broken or incomplete {kind} image ({reason})") from error


def _parsed(data: bytes, kind: str, name: str, max_pixels: int) -> Image.Image:
    """Read the header of an image that is within the limit."""

    def check(width: int, height: int) -> None:
        if width * height > max_pixels:
            raise TooManyPixelsError(
                f"{name}: {width} x {height} pixels are more than the limit of {max_pixels:,} pixels",
                "raise the limit or shrink the image",
            )

    if kind == "JPEG XL":  # Its plugin decodes at once.
        check(*_jxl_header(data)[:2])
    with _muted_warnings():
        # The plugin is called directly, and not through `Image.open`, because that one warns of and
        # refuses large images by a process-wide limit of its own.
        if kind == "TIFF":
            image: Image.Image = tiff.open_tiff(data, name, check)
        else:
            try:
                image = decoder_of(kind, name)(io.BytesIO(data))
            except ValueError:  # Pillow takes no profile of more than 1 MB in a PNG.
                start, end = colour.profile_chunk(data)
                image = decoder_of(kind, name)(io.BytesIO(data[:start] + data[end:]))
    check(*image.size)
    return image


def _finished(
    image: Image.Image, data: bytes, kind: str, turn: int | None, max_pixels: int, min_size: int | None
) -> tuple[Image.Image, Box]:
    """Decode an image, and make it upright and sRGB."""
    image, box = _decode(image, data, kind, min_size)
    if kind == "JPEG XL" and (own := _jxl_header(data)[2]) != 1:
        turn = own if getattr(image, "jpeg", False) else 1  # Its decoder turns all but a JPEG that was packed whole.
    image.info["icc_profile"] = profile_of(image, data, kind)
    method = _method(image) if turn is None else _TRANSPOSE.get(turn)
    turned = image if method is None else image.transpose(method)
    shown = to_rgb(turned, _DRAFT_MARGIN * min_size if min_size and kind != "JPEG" else None)
    box = _turned(box, image.size, method) if shown.size == turned.size else (0, 0, *shown.size)
    if kind in _OF_SEVERAL:
        shown = _first_shown(image, shown, max_pixels)
    return shown, box


def to_rgb(image: Image.Image, side: int | None = None) -> Image.Image:
    """Convert an image of any mode to sRGB, see `colour.to_srgb`; most images are nearly that."""
    profile = image.info.get("icc_profile")
    if image.mode not in ("RGB", "L") or image.has_transparency_data or profile:
        return colour.to_srgb(image, side)
    image = image.convert("RGB")
    image.info = {}
    return image


def display_name(source: Source) -> str:
    """Name an image's source in one printable line, for messages."""
    if isinstance(source, bytes):
        return "<bytes>"
    if isinstance(source, str | os.PathLike):
        return printable(os.fspath(source))
    name = getattr(source, "name", None)
    return printable(name) if isinstance(name, str) else "<file object>"


def printable(text: str) -> str:
    """Make control characters and undecodable bytes visible, so that a text stays one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def read_file(source: Source, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """Read an image file without decoding it.

    Returns:
        Its bytes; that they are an image is known by their beginning only.

    Raises:
        ImageError: The file is absent, unreadable, or longer than an image within the limit can be.
    """
    if isinstance(source, bytes):
        return source
    # Read whole: decoding then needs no open file, and no lock is ever held over slow storage.
    name, max_bytes = display_name(source), max_pixels * _BYTES_PER_PIXEL + _METADATA_BYTES
    try:
        if isinstance(source, str | os.PathLike):
            with open_file(Path(source), name) as file:
                return _read_stream(file, name, max_bytes)
        return _read_file_object(source, name, max_bytes)
    except (OSError, ValueError) as error:  # ValueError: a closed file, or a null character in a path.
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{name}: cannot be read ({printable(reason)})") from error


def open_file(path: Path, name: str) -> BinaryIO:
    """Open a regular file, also in a tar; what is none is an :class:`ImageError` that calls it ``name``."""
    if path.is_file():
        return path.open("rb")
    if tars.is_file(path):
        return tars.open_file(path)
    if path.is_symlink() and not path.exists():
        raise ImageError(f"{name}: a link to a file that is not there")
    if not path.exists():
        raise ImageError(f"{name}: no such file")
    if path.is_dir():
        readable = os.access(path, os.R_OK | os.X_OK)
        raise ImageError(f"{name}: " + ("a folder, not an image" if readable else "folder cannot be read"))
    raise ImageError(f"{name}: not a regular file")  # Opening a named pipe would wait for its writer, perhaps for ever.


def _read_file_object(file: BinaryIO, name: str, max_bytes: int) -> bytes:
    if isinstance(file, io.BytesIO):
        data = file.getvalue()  # shares its memory, where reading would copy it
        if len(data) >= _HEAD_BYTES:
            identify(data, name)
        if len(data) > max_bytes:
            raise _too_long(name, max_bytes)
        return data
    try:
        position = file.tell()
        file.seek(0)
    except (OSError, AttributeError):  # A pipe, a socket.
        return _read_stream(file, name, max_bytes)
    try:
        return _read_stream(file, name, max_bytes)
    finally:
        file.seek(position)


def _read_stream(stream: BinaryIO, name: str, max_bytes: int) -> bytes:
    data = io.BytesIO()
    while chunk := stream.read(_CHUNK_BYTES):
        if isinstance(chunk, str):
            raise ImageError(f"{name}: the file object gives text", "open it in binary mode")
        if data.tell() < _HEAD_BYTES <= data.tell() + len(chunk):
            identify(data.getvalue() + chunk, name)  # A film of 10 GB named .jpg is not read to its end.
        data.write(chunk)
        if data.tell() > max_bytes:
            raise _too_long(name, max_bytes)
    return data.getvalue()


def _too_long(name: str, max_bytes: int) -> ImageError:
    return ImageError(f"{name}: longer than {max_bytes:,} bytes, too much for the limit on pixels")


def identify(data: bytes, name: str) -> str:
    """Detect the format from a file's first bytes.

    Args:
        data: At least the first 512 of them, or the whole file.
        name: What to call the file in messages.

    Returns:
        Its usual name, such as "JPEG".

    Raises:
        ImageError: It is no image, or of a format that is not opened here.
    """
    head = data[:_HEAD_BYTES]
    if not head:
        raise ImageError(f"{name}: file is empty")
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    if head.startswith((b"\xff\x0a", _JXL_BOX)):
        return "JPEG XL"
    if head.startswith(_RAW_HEADS) or head[4:12] == b"ftypcrx ":
        return "camera raw"
    if head[4:8] == b"ftyp":  # ISO base media file format: the brands say what is inside.
        brands = head[8 : int.from_bytes(head[:4], "big")]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")):
            return "HEIC"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        raise ImageError(f"{name}: SVG drawings are not supported", "convert it to PNG first")
    if text.startswith((b"<!doctype html", b"<html")):
        raise ImageError(f"{name}: a web page, not an image", "download the image itself")
    raise ImageError(f"{name}: not an image in a known format ({_FORMATS})")


def decoder_of(kind: str, name: str) -> Any:
    """Return the class that opens a format, imported only where it is needed: rarer ones may be absent.

    Raises:
        NoDecoderError: it is absent; ``name`` is what to call the image.
    """
    module, found, extra = _EXTRAS.get(kind, ("", "", ""))
    try:
        plugin = import_module(module or f"PIL.{_PLUGINS[kind]}ImagePlugin")
    except ImportError as error:  # Pillow before 11.3 has no AVIF.
        advice = f"run: pip install 'captioner[{extra}]'" if extra else "run: pip install --upgrade pillow"
        raise NoDecoderError(f"{name}: {kind} images cannot be read", advice) from error
    return getattr(plugin, found or f"{_PLUGINS[kind]}ImageFile")


@contextmanager
def _muted_warnings() -> Iterator[None]:
    """Silence Pillow's remarks on odd metadata, which say nothing about the image.

    `warnings.catch_warnings` exchanges a list of the whole process, so overlapping uses in several threads
    would leave the wrong one behind: hence the lock, held while headers are parsed, not while pixels are
    decoded.
    """
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


def _decode(image: Image.Image, data: bytes, kind: str, min_size: int | None) -> tuple[Image.Image, Box]:
    """Decode an image, and say where in it the picture lies."""
    box: Box | None = None
    side = min_size and _DRAFT_MARGIN * min_size
    if image.width * image.height > _FEW_PIXELS and (factor := large.factor(image, data, side)) > 1:
        return large.read_png(image, data, factor), (0, 0, image.width / factor, image.height / factor)
    if side is not None and kind == "JPEG":
        drafted: Any = image.draft(None, (side, side))
        box = drafted and drafted[1]
    try:
        with _muted_warnings() if kind == "TIFF" else nullcontext():  # TIFF alone reads metadata while it decodes.
            image.load()
        if kind == "JPEG" and data.endswith(b"\0") and not data.rstrip(b"\0").endswith(_END):
            raise OSError("image file is truncated and filled up with zeros")
    except OSError:
        whole = False
        with suppress(Exception):  # The reason of the first failure is the one to give.
            whole = kind == "JPEG" and not data.endswith(_END) and _lacks_only_its_end(data)
        if not whole:
            raise
        return _decode(decoder_of(kind, "")(io.BytesIO(data + _END)), data + _END, kind, min_size)
    return image, box or (0, 0, *image.size)  # what a HEIC holds may have another size than its header says


def _lacks_only_its_end(data: bytes) -> bool:
    """Whether a JPEG has all its scans, and whatever follows the last of them changes no pixel."""
    *_, frame = (None, *_FRAME.finditer(data))
    if frame is None:
        return False
    start = frame.end() + 5
    exact = {component: set[int]() for component in data[start : start + 3 * data[start - 1] : 3]}
    for scan in _SCAN.finditer(data, start):
        header = data[scan.end() : scan.end() + 18]
        places, (first, last, precision) = header[1 : 1 + 2 * header[0]], header[1 + 2 * header[0] :][:3]
        for component in exact.keys() & set(places[::2]) if not precision & 15 else ():
            exact[component] |= set(range(first, last + 1))
    if any(len(places) < 64 for places in exact.values()):
        return False
    base = data.rstrip(b"\0\xff")  # What fills up a file would be decoded as pixels.
    base += b"\xff\0" if data.startswith(b"\xff\0", len(base)) else b""
    noise = random.Random(0).randbytes(256).replace(b"\xff", b"\x7f")
    number = len(re.findall(rb"\xff[\xd0-\xd7]", base[base.rindex(b"\xff\xda") :])) % 8
    restart = bytes([0xFF, 0xD0 + number]) + noise  # Where data are to go on behind a mark, others are passed over.
    files = (io.BytesIO(base + following + _END) for following in (b"", bytes(256), noise, restart))
    return len({hashlib.sha256(decoder_of("JPEG", "")(file).tobytes()).digest() for file in files}) == 1


def upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; metadata that cannot be read leave the image as it is."""
    image.load()  # Pillow turns a TIFF while it does.
    method = _method(image)
    return image if method is None else image.transpose(method)


def profile_of(image: Image.Image, data: bytes, kind: str) -> bytes | None:
    """The embedded profile, or one of the colours that the metadata describe; see `colour.described_profile`."""
    with _muted_warnings():
        described = kind != "JPEG" or "exif" in image.info  # nothing else in a JPEG tells
        return image.info.get("icc_profile") or (colour.described_profile(image, data, kind) if described else None)


def _method(image: Image.Image) -> Image.Transpose | None:
    try:
        with _muted_warnings():
            return _TRANSPOSE.get(image.getexif().get(_ORIENTATION))
    except Exception:  # As in `open_image`; but here the image itself is good.
        return None


def _turned(box: Box, size: tuple[int, int], method: Image.Transpose | None) -> Box:
    """Where a part of an image lies when the image is turned."""
    left, upper, right, lower = box
    width, height = size
    if method in (Image.Transpose.TRANSPOSE, *_QUARTERS):
        left, upper, right, lower, width, height = upper, left, lower, right, height, width
    if method in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, *_QUARTERS[:2]):
        left, right = width - right, width - left
    if method in (Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180, *_QUARTERS[1:]):
        upper, lower = height - lower, height - upper
    return left, upper, right, lower


def _first_shown(image: Any, first: Image.Image, max_pixels: int) -> Image.Image:
    """Find the first frame of an animation, or page of a TIFF, that shows something.

    Args:
        image: Decoded; it may have one frame only.
        first: Its first frame, as `to_rgb` gives it.
        max_pixels: As many pixels are decoded at most.
    """
    # A PNG may hold an image for programs that know no animations; Pillow would draw the first frame over it.
    outside = getattr(image, "default_image", False)
    if _shows(first) and not outside:
        return first
    shown = first
    with suppress(Exception):  # EOFError at the end; and what is broken behind the first frame does no harm.
        if outside:
            image.paste(0, (0, 0, *image.size))
        for number in range(1, min(_MOST_FRAMES, 1 + max_pixels // (image.width * image.height))):
            image.seek(number)
            if image.width * image.height > max_pixels or tiff.is_part(image):
                continue
            frame = to_rgb(upright(image))
            if _shows(frame):
                return frame
            if outside and number == 1:
                shown = frame
    return shown


def _shows(image: Image.Image) -> bool:
    return max(high - low for low, high in image.getextrema()) > _FLAT  # type: ignore[misc]


def _jxl_header(data: bytes) -> tuple[int, int, int]:
    """Read width, height and orientation of a JPEG XL."""
    at = 0
    while data.startswith(_JXL_BOX):  # boxes
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if name in (b"jxlc", b"jxlp"):
            at += 8 if name == b"jxlc" else 12
            break
        if size < 8:
            raise ValueError("no codestream")
        at += size
    bits = int.from_bytes(data[at + 2 : at + 34], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    small = take(1)

    def side() -> int:
        return 8 * take(5) + 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    height, ratio = side(), take(3)
    over, under = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio]
    width = height * over // under if ratio else side()
    plain = take(1) or not take(1)
    return width, height, 1 if plain else take(3) + 1
