"""A caption inside an image file: EXIF ``ImageDescription``, XMP ``dc:description``, IPTC and the alt text.

Photo managers show the description, screen readers read the alt text. Pixels are not touched: not one byte of
the compressed data changes, nor of any other metadata.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, NamedTuple

from captioner.embed import containers, others, tiff, xmp
from captioner.embed.authors import Author, author_of, decoded, plain_text
from captioner.embed.containers import Part
from captioner.embed.iptc import Iptc
from captioner.errors import ImageError
from captioner.images.open import identify

_HEAD_BYTES = 512
ALT_TEXT = "XMP Iptc4xmpCore:AltTextAccessibility"
IPTC_CAPTION = "IPTC Caption-Abstract"


class Field(NamedTuple):
    """A text in a file that describes the image.

    Attributes:
        name: where it stands, such as ``EXIF ImageDescription``.
        text: what it says; not empty.
        author: who wrote it, as far as that is known.
    """

    name: str
    text: str
    author: Author


class Texts(NamedTuple):
    """What an image says of itself; empty where it says nothing."""

    description: str
    alt_text: str


def read_parts(file: BinaryIO, name: str) -> list[Part]:
    """Read an image's metadata, also of formats that no caption can be embedded in.

    Args:
        file: the image.
        name: what to call it in messages.

    Raises:
        ImageError: it is no image, or damaged.
    """
    kind = _kind(file, name)
    with problems(name, "its captions cannot be read"):
        if kind in containers.CONTAINERS:
            return containers.CONTAINERS[kind](file).parts
        return list(others.read_parts(file, kind, name))


def read_fields(file: BinaryIO, name: str) -> list[Field]:
    """Read all texts in an image that describe it; see :func:`read_parts`."""
    parts = read_parts(file, name)
    with problems(name, "its captions cannot be read"):
        return [field for part in parts for field in fields_of(part)]


def read_texts(file: BinaryIO, name: str) -> Texts:
    """Read an image's texts. What cameras write into every image is not counted; see :func:`read_fields`."""
    return texts_of(read_fields(file, name))


def texts_of(fields: list[Field]) -> Texts:
    """The description and the alt text among fields; of several, that which most programs would show."""
    descriptions, alt_texts = _written(fields)
    return Texts(next(iter(descriptions), ""), next(iter(alt_texts), ""))


def check_embeddable(data: bytes, name: str) -> None:
    """Check that a caption can be embedded, as far as that is known without one.

    Raises:
        ImageError: it cannot.
    """
    embed(data, "An image.", name, overwrite=True)


def embed(data: bytes, caption: str, name: str, *, own: str = "", overwrite: bool = False, iptc: bool = False) -> bytes:
    """Write a caption into an image.

    A description or an alt text that a person has written stays, in whatever field and language it stands: then
    nothing is written beside it that a program could show instead.

    Args:
        data: the image file.
        caption: one line.
        name: what to call the image in messages.
        own: a caption that was embedded earlier, and can be replaced.
        overwrite: replace whatever is there.
        iptc: write IPTC too where there is none, if the format has a place for it.

    Returns:
        The new file.

    Raises:
        ImageError: its format has no support here, it is damaged, or has no room.
    """
    kind = _kind(file := io.BytesIO(data), name)
    with problems(name, "no caption can be embedded"):
        if kind not in containers.CONTAINERS:
            *most, last = containers.CONTAINERS
            reason = f"its format is {kind}, not {', '.join(most)} or {last}"
            raise ImageError(f"{name}: no caption can be embedded ({reason})", "`format` xmp writes one beside it")
        image = containers.CONTAINERS[kind](file)
        descriptions, alt_texts = _written([field for part in image.parts for field in fields_of(part)])
        describe = overwrite or {*descriptions} <= {own}
        tell = overwrite or {*alt_texts} <= {own}
        if not (describe or tell):
            return data
        limit = image.xmp_limit
        parts = [_captioned(part, caption, describe=describe, tell=tell, limit=limit) for part in image.parts]
        kinds = {part.kind for part in parts}
        if describe and "exif" not in kinds:
            parts.append(Part("exif", tiff.Tiff(tiff.EMPTY).with_text(tiff.IMAGE_DESCRIPTION, caption)))
        if "xmp" not in kinds:
            parts.append(Part("xmp", _packet(None, caption, describe=describe, tell=tell, limit=limit)))
        if describe and iptc and image.has_iptc:
            parts = _with_iptc(parts, caption)
        return image.rewritten(parts)


def fingerprint(data: bytes) -> bytes:
    """What images share that look the same, whatever is said in them: of other formats, those of equal content."""
    with suppress(ImageError, ValueError, IndexError, struct.error):
        kind = _kind(file := io.BytesIO(data), "image")
        if kind in containers.CONTAINERS:
            image = containers.CONTAINERS[kind](file)
            exif = next((part.content for part in image.parts if part.kind == "exif"), None)
            turned = tiff.Tiff(exif).value(tiff.ORIENTATION) if exif else None
            return (turned or b"") + image.pixels()
    return data


def packet_texts(content: bytes) -> Texts:
    """What a packet of XMP says.

    Raises:
        ValueError: it is no XMP in UTF-8.
    """
    return texts_of(list(_fields_of_packet(content)))


def packet(before: bytes | None, caption: str, *, described: bool, own: str = "", overwrite: bool = False) -> bytes:
    """Write a caption into a packet of XMP that lies in a file of its own; see :func:`embed`.

    Args:
        before: the packet that is there; None for none.
        caption: one line.
        described: the image itself has a description that a person has written.
        own: a caption that was written earlier, and can be replaced.
        overwrite: replace whatever is there.

    Raises:
        ValueError: ``before`` is no XMP in UTF-8.
    """
    fields = list(fields_of(Part("xmp", before))) if before else []
    descriptions, alt_texts = _written(fields)
    describe = overwrite or ({*descriptions} <= {own} and not described)
    tell = overwrite or {*alt_texts} <= {own}
    return _packet(before, caption, describe=describe, tell=tell, limit=None)


def _written(fields: list[Field]) -> tuple[list[str], list[str]]:
    """Descriptions and alt texts that a person has written; those first that most programs would show."""
    fields = sorted((f for f in fields if f.author is Author.PERSON), key=_rank)
    alt_texts = [field.text for field in fields if field.name == ALT_TEXT]
    return [field.text for field in fields if field.name != ALT_TEXT], alt_texts


def _rank(field: Field) -> int:
    """How many kinds of fields most programs ask before this one; comments of all formats come last."""
    return {"EXIF": 0, "XMP": 1, "IPTC": 2}.get(field.name.split()[0], 3)


def fields_of(part: Part) -> Iterator[Field]:
    """What a part says."""
    if part.kind == "exif":
        for tag, text in tiff.Tiff(part.content).comments().items():
            yield _field(f"EXIF {tiff.COMMENTS[tag]}", text)
    elif part.kind == "xmp":
        yield from _fields_of_packet(part.content)
    elif part.kind == "long xmp":
        with suppress(ValueError):  # it may be unfinished, or a rest of an earlier one
            yield from _fields_of_packet(part.content)
    elif part.kind == "iptc":
        if text := Iptc(part.content).caption():
            yield _field(IPTC_CAPTION, text)
    elif text := plain_text(decoded(part.content)):
        yield _field(part.name, text)


def _fields_of_packet(content: bytes) -> Iterator[Field]:
    for key, texts in xmp.read_packet(content).items():
        for text in texts:
            yield _field(f"XMP {key.prefix}:{key.name}", text.strip())


def _field(name: str, text: str) -> Field:
    return Field(name, text, author_of(text, comment=name.lower().endswith("comment")))


def _captioned(part: Part, caption: str, *, describe: bool, tell: bool, limit: int | None) -> Part:
    """A part with the caption wherever it has a description or an alt text, and in the fields that all images get."""
    fields = list(fields_of(part))
    content, signed = part.content, {field.name for field in fields if field.author is Author.PROGRAM}
    if part.kind == "xmp":
        content = _packet(content, caption, describe=describe, tell=tell, limit=limit)
    elif part.kind == "long xmp" and fields:
        content = _packet(content, caption, describe=describe, tell=tell, limit=None, adding=False)
    elif part.kind == "exif" and describe:
        for tag in sorted({tiff.IMAGE_DESCRIPTION, *tiff.Tiff(content).comments()}):
            if f"EXIF {tiff.COMMENTS[tag]}" not in signed:
                content = tiff.Tiff(content).with_comment(tag, caption)
    elif part.kind == "iptc" and describe and Iptc(content).has_datasets:
        content = Iptc(content).with_caption(caption)
    elif part.kind == "text" and describe and fields and not signed:
        content = caption.encode()
    return part._replace(content=content)


def _packet(
    before: bytes | None, caption: str, *, describe: bool, tell: bool, limit: int | None, adding: bool = True
) -> bytes:
    """A packet with the caption in the properties that have a text, and in those that all images get (``adding``)."""
    signed = {field.name for field in (_fields_of_packet(before) if before else ()) if field.author is Author.PROGRAM}
    held = {key for key in xmp.read_packet(before) if f"XMP {key.prefix}:{key.name}" not in signed}
    if adding:
        held |= {xmp.DESCRIPTION, xmp.ALT_TEXT}
    wanted = [each for each in (*xmp.DESCRIPTIONS * describe, *(xmp.ALT_TEXT,) * tell) if each in held]
    return xmp.write_packet(before, dict.fromkeys(wanted, caption), limit=limit)


def _with_iptc(parts: list[Part], caption: str) -> list[Part]:
    """The parts with the caption in IPTC, which is added where there is none."""
    if "iptc" not in {part.kind for part in parts}:
        return [*parts, Part("iptc", Iptc(b"").with_caption(caption))]
    written = (Iptc(part.content).with_caption(caption) if part.kind == "iptc" else part.content for part in parts)
    return [part._replace(content=content) for part, content in zip(parts, written, strict=True)]


def _kind(file: BinaryIO, name: str) -> str:
    file.seek(0)
    kind = identify(file.read(_HEAD_BYTES), name)
    file.seek(0)
    return kind


@contextmanager
def problems(name: str, what: str) -> Iterator[None]:
    """Say of damage that is found inside the block in which file it is, and what does not work therefore."""
    try:
        yield
    except (ValueError, IndexError, struct.error) as error:
        raise ImageError(f"{name}: {what} ({error})") from error
