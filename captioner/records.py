"""One image: where it lies, and the record of what became of it, which goes from the network into every output."""

from dataclasses import dataclass

from captioner.caption import Caption
from captioner.images import reading, tars

Captions = tuple[Caption, ...]


@dataclass(frozen=True)
class Record:
    """What became of one image.

    Attributes:
        image: its path, or its place in a tar; only its name if the record was read back from an output.
        captions: the best first when searching, in the order drawn when sampling; empty if the image failed.
            Those that are written have ``text``, ``log_prob`` and ``confidence`` only.
        error: why it failed, in one line; None if it did not.
        image_id: its number, for formats that name images by number.
        identity: of the file that was captioned; None if it could not be read.
        thumbnail: a small JPEG of it, if asked for.
    """

    image: tars.Item | str
    captions: Captions = ()
    error: str | None = None
    image_id: int | None = None
    identity: reading.Identity | None = None
    thumbnail: bytes | None = None

    @property
    def name(self) -> str:
        """What outputs call the image."""
        return str(self.image)
