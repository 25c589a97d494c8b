"""Captions in files beside the pictures: ``photo.txt`` beside ``photo.jpg``, each with one line."""

from __future__ import annotations

from pathlib import Path

from captioner.batch.beside import FilePerPicture
from captioner.batch.records import Identity
from captioner.files import replacing


class Sidecars(FilePerPicture):
    """A text file beside each picture; a target.

    Args:
        ending: of the sidecars' names, such as ``.txt``.
        max_pixels: see :class:`FilePerPicture`.
    """

    def __init__(self, ending: str, *, max_pixels: int) -> None:
        super().__init__(max_pixels=max_pixels)
        self._ending = ending

    def _file_of(self, image: str) -> Path:
        path = Path(image)
        return path.with_name(path.stem + self._ending) if path.name else path

    def _put(self, image: str, caption: str, identity: Identity) -> None:
        content = f"{caption}\n".encode()
        with replacing(self._file_of(image)) as file:
            file.write(content)
            self._note.about(identity, content).write(file)
