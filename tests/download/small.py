"""The real table at a small scale: the same names and layout, a few tiny files, addresses on the loopback."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captioner.download.catalog import Archive, Collection
    from tests.download.server import FileServer

IMAGES = 3


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def small_collection(collection: Collection, server: FileServer) -> Collection:
    """Serves small archives laid out like the real ones and returns the table entry for them."""
    archives = tuple(_small_archive(archive, server) for archive in collection.archives)
    return dataclasses.replace(collection, archives=archives)


def _small_archive(archive: Archive, server: FileServer) -> Archive:
    files = {"__MACOSX/._junk": b"junk", "readme.txt": b"not wanted"}
    for piece in archive.pieces:
        files |= _piece(piece.path)
    content = zipped(files)
    server.files[archive.name] = content
    pieces = tuple(dataclasses.replace(piece, files=min(piece.files, IMAGES)) for piece in archive.pieces)
    return dataclasses.replace(
        archive, address=server.address(archive.name), size=len(content), unpacked=100_000, pieces=pieces
    )


def _piece(path: str) -> dict[str, bytes]:
    if path.endswith("/"):
        return {path: b"", **{f"{path}{number}.jpg": f"image {number}".encode() for number in range(IMAGES)}}
    if path.startswith("annotations/"):
        contents: object = {
            "images": [{"id": number, "file_name": f"{number}.jpg"} for number in range(IMAGES)],
            "annotations": [{"image_id": number, "caption": "A dog."} for number in range(IMAGES)],
        }
        return {path: json.dumps(contents).encode()}
    if path.endswith(".json"):
        image = {"filename": "0.jpg", "split": "test", "sentences": [{"raw": "A dog."}]}
        return {path: json.dumps({"images": [image]}).encode()}
    if path.endswith("token.txt"):
        return {path: b"".join(b"%d.jpg#0\tA dog .\n" % number for number in range(IMAGES))}
    lists = ("trainImages", "devImages", "testImages")
    return {path: b"%d.jpg\n" % next(n for n, name in enumerate(lists) if name in path)}
