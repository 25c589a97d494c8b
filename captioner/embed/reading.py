"""``captioner read``: what captions an image file holds, and which of them programs show."""

from pathlib import Path
from typing import NamedTuple

from captioner.embed.containers import Part
from captioner.embed.embedding import IPTC_CAPTION, Field, fields_of, problems, read_parts
from captioner.embed.iptc import Iptc
from captioner.errors import ImageError, os_errors_as
from captioner.images.open import display_name, open_file

PROGRAMS = {
    "mwg": "exiftool -use MWG",
    "gexiv2": "GNOME (GExiv2)",
    "exifr": "exifr",
    "iptc": "WordPress, Piwigo, Lychee",
}
"""Programs whose rules are known, by their names in JSON."""

_EXIF, _XMP = "EXIF ImageDescription", "XMP dc:description"
# In which fields a program looks, one after the other, as measured with exiftool 12.57, GExiv2 0.14.0 and exifr 7.1.3.
# The Metadata Working Group puts IPTC before XMP where its digest says that it was changed later.
_ORDERS = {
    "mwg": (_EXIF, _XMP, IPTC_CAPTION),
    "gexiv2": ("JPEG comment", _EXIF, "EXIF UserComment", IPTC_CAPTION, _XMP),
    "exifr": (_EXIF,),
    "iptc": (IPTC_CAPTION,),
}


class Captions(NamedTuple):
    """What a file says.

    Attributes:
        fields: all texts that describe the image.
        shown: the description that each of :data:`PROGRAMS` shows; absent for those that show none.
    """

    fields: list[Field]
    shown: dict[str, str]


def read_captions(path: Path) -> Captions:
    """Read what an image file, or an XMP file beside one, says.

    Raises:
        ImageError: it cannot be read, or is damaged.
    """
    name = display_name(path)
    with os_errors_as(ImageError, f"{name}: cannot be read (", ")"), open_file(path, name) as file:
        is_xmp = path.suffix.lower() == ".xmp"
        parts = [Part("xmp", file.read())] if is_xmp else read_parts(file, name)
    with problems(name, "its captions cannot be read"):
        fields = [field for part in parts for field in fields_of(part)]
    orders = dict(_ORDERS)
    if any(Iptc(part.content).is_stale for part in parts if part.kind == "iptc"):
        orders["mwg"] = (_EXIF, IPTC_CAPTION, _XMP)
    texts: dict[str, str] = {}
    for field in fields:
        texts.setdefault(field.name, field.text)
    found = {program: next((texts[n] for n in order if n in texts), "") for program, order in orders.items()}
    return Captions(fields, {program: text for program, text in found.items() if text})
