"""Open an image: any common file becomes an upright RGB image, or one clear error.

The format is detected from the file's first bytes, never from its name, and only the formats listed here are
tried: a hostile file cannot reach the decoders of rarer formats.
"""

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from captioner.errors import ImageError, NoDecoderError, TooManyPixelsError

Source = str | os.PathLike[str] | bytes | BinaryIO

DEFAULT_MAX_PIXELS = 100_000_000
_FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC"
_PLUGINS = {"JPEG": "Jpeg", "PNG": "Png", "WebP": "WebP", "GIF": "Gif", "BMP": "Bmp", "TIFF": "Tiff", "AVIF": "Avif"}
_HEAD_BYTES = 512
# A file may be this much longer than its header suggests: 8 bytes for each pixel (16-bit RGBA) that the
# limit allows, and room for profiles, thumbnails and metadata.
_BYTES_PER_PIXEL = 8
_METADATA_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**20
# How much longer than needed the short side of a JPEG decoded at reduced scale is at least. Measured on
# images preprocessed to 260 x 260: with 4, pixels of 4000 x 3000 differ by 0.1 of 255 on average from a
# full decode, and all of 48 images enlarged fourfold keep their caption. With 2 they differ by 0.21 and
# reading gains twice as much (8 times as fast as in full), but 5 of the 48 captions change.
_DRAFT_MARGIN = 4
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
_WARNINGS_LOCK = threading.Lock()


def open_image(source: Source, *, max_pixels: int = DEFAULT_MAX_PIXELS, min_size: int | None = None) -> Image.Image:
    """Open an image as RGB, upright.

    EXIF orientation is applied, transparency is laid over white, 16-bit and floating-point grey is scaled
    to 8 bits, and the first frame of an animation is taken.

    Args:
        source: A path, the bytes of an image file, or a binary file object. A seekable file object is read
            from its start and left where it was, any other is read to its end; neither is closed.
        max_pixels: Width times height above which an image is refused, before it is decoded.
        min_size: The side in pixels of the square that the image is wanted for. A JPEG whose sides are
            both much longer is decoded at a half, a quarter or an eighth of its size, which is faster; its
            short side stays at least four times `min_size`.

    Returns:
        An image of mode "RGB" that needs no open file.

    Raises:
        ImageError: The image is absent, unreadable, empty, broken, too large, or of an unknown format.
    """
    name = display_name(source)
    data = read_file(source, max_pixels=max_pixels)
    kind = identify(data, name)
    plugin = _plugin(kind, name)
    try:
        with _muted_warnings():
            # The plugin is called directly, and not through `Image.open`, because that one warns of and
            # refuses large images by a process-wide limit of its own.
            image = plugin(io.BytesIO(data))
        width, height = image.size
        if width * height > max_pixels:
            raise TooManyPixelsError(
                f"{name}: {width} x {height} pixels are more than the limit of {max_pixels:,} pixels",
                "raise the limit or shrink the image",
            )
        return to_rgb(_upright(_decode(image, kind, min_size)))
    except ImageError:
        raise
    except Exception as error:  # Decoders fail on broken files with nearly every class of exception.
        reason = printable(str(error)) or type(error).__name__
        raise ImageError(f"{name}: broken or incomplete {kind} image ({reason})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB: transparency over white, deep grey scaled to 8 bits."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


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
            with _open_file(Path(source), name) as file:
                return _read_stream(file, name, max_bytes)
        return _read_file_object(source, name, max_bytes)
    except (OSError, ValueError) as error:  # ValueError: a closed file, or a null character in a path.
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{name}: cannot be read ({printable(reason)})") from error


def _open_file(path: Path, name: str) -> BinaryIO:
    if path.is_symlink() and not path.exists():
        raise ImageError(f"{name}: a link to a file that is not there")
    if not path.exists():
        raise ImageError(f"{name}: no such file")
    if path.is_dir():
        readable = os.access(path, os.R_OK | os.X_OK)
        raise ImageError(f"{name}: " + ("a folder, not an image" if readable else "folder cannot be read"))
    if not path.is_file():  # Opening a named pipe would wait for its writer, perhaps for ever.
        raise ImageError(f"{name}: not a regular file")
    return path.open("rb")


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


def _plugin(kind: str, name: str) -> type[ImageFile.ImageFile]:
    """Return Pillow's decoder for a format, imported only where one is needed: rarer ones may be absent."""
    heic = kind == "HEIC"
    try:
        module = import_module("pillow_heif" if heic else f"PIL.{_PLUGINS[kind]}ImagePlugin")
    except ImportError as error:  # Pillow before 11.3 has no AVIF.
        advice = "run: pip install 'captioner[heif]'" if heic else "run: pip install --upgrade pillow"
        raise NoDecoderError(f"{name}: {kind} images cannot be read", advice) from error
    plugin: type[ImageFile.ImageFile] = getattr(module, "HeifImageFile" if heic else f"{_PLUGINS[kind]}ImageFile")
    return plugin


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


def _decode(image: ImageFile.ImageFile, kind: str, min_size: int | None) -> ImageFile.ImageFile:
    if min_size is not None and kind == "JPEG":
        side = _DRAFT_MARGIN * min_size
        image.draft(None, (side, side))
    if kind == "TIFF":
        with _muted_warnings():  # TIFF alone reads metadata while it decodes.
            image.load()
    else:
        image.load()
    return image


def _upright(image: ImageFile.ImageFile) -> Image.Image:
    """Apply the EXIF orientation; metadata that cannot be read leave the image as it is."""
    try:
        with _muted_warnings():
            method = _TRANSPOSE.get(image.getexif().get(_ORIENTATION))
    except Exception:  # As in `open_image`; but here the image itself is good.
        return image
    return image if method is None else image.transpose(method)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey of 16 bits, 32 bits or floating point to 8 bits.

    Sixteen bits run from 0 to 65535. The wider modes have no fixed white: the smallest usual one (1 for
    floats, 255, 65535) that no value exceeds is taken, or else the range of the image's own values.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    whites = {"I": (255.0, 65535.0), "F": (1.0, 255.0, 65535.0)}.get(image.mode, (65535.0,))
    black, white = next(((0.0, w) for w in whites if low >= 0 and high <= w), (low, high))
    scaled = (values - black) * (255.0 / (white - black) if white > black else 0.0)
    return Image.fromarray(np.rint(scaled).clip(0, 255).astype(np.uint8))
