"""What is noted of a caption that has a file of its own: an extended attribute of that file."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from captioner.batch.records import Identity
from captioner.batch.settings import Settings

_ATTRIBUTE = "user.captioner"


@dataclass(frozen=True)
class Note:
    """What a caption's file was made with and of: digests, since an extended attribute has to be short.

    Attributes:
        model: of the weights.
        decoding: of decoding options and precision.
        texts: of the texts before and after the caption.
        size: bytes of the picture, as text.
        picture: of the picture's bytes.
        caption: of the file's own content.
    """

    model: str
    decoding: str
    texts: str
    size: str = ""
    picture: str = ""
    caption: str = ""

    @classmethod
    def of_settings(cls, settings: Settings) -> Note:
        """What the files of a run have in common."""
        groups = (
            ("weights", "encoder", "image_size", "resize"),
            ("decoding", "precision"),
            ("prepend", "append"),
        )
        parts = [{name: settings.get(name) for name in names} for names in groups]
        return cls(*(short_digest(json.dumps(part, sort_keys=True).encode()) for part in parts))

    def about(self, identity: Identity, content: bytes) -> Note:
        """The note of one file."""
        picture = identity.digest[:8].hex()
        return replace(self, size=str(identity.size), picture=picture, caption=short_digest(content))

    def encode(self) -> bytes:
        """As it is stored."""
        return " ".join(vars(self).values()).encode()

    def write(self, file: BinaryIO) -> None:
        """Attach it to a file that is being written, where the file system lets one."""
        with suppress(AttributeError, OSError):  # no such thing on this system, or here
            os.setxattr(file.fileno(), _ATTRIBUTE, self.encode())

    @classmethod
    def read(cls, path: Path) -> Note | None:
        """The note of a file; None if it has none, or one that this version does not know."""
        try:
            parts = os.getxattr(path, _ATTRIBUTE).decode().split(" ")
            return cls(*parts) if len(parts) == len(cls.__match_args__) else None
        except (AttributeError, OSError, UnicodeDecodeError):  # no such thing on this system, or here
            return None

    def differences(self, other: Note) -> str:
        """In words, in which settings two notes differ; empty if in none."""
        names = {"model": "weights", "decoding": "decoding options", "texts": "`prepend` or `append`"}
        return " and ".join(name for key, name in names.items() if getattr(self, key) != getattr(other, key))


def short_digest(data: bytes) -> str:
    """Enough of a digest to see a change by."""
    return hashlib.blake2b(data, digest_size=4).hexdigest()
