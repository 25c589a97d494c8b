"""``captioner read``: what files say, and what programs show of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from captioner.cli import main
from tests.embed.pictures import save
from tests.embed.test_words import HUMAN, described, exif, iim, item, press, resources, segment, xmp

PACKET = xmp(described(item("x-default", "in XMP")))


def fill(folder: Path) -> None:
    files = {
        "camera.jpg": exif(description="SONY DSC"),
        "press.jpg": press(resources(iim((2, 120, HUMAN.encode())), bytes(16))),
        "comment.jpg": segment(save("JPEG", xmp=PACKET), 0xFE, b"a comment"),
        "silent.png": save("PNG"),
        "film.gif": save("GIF", comment=b"a film"),
        "scan.tif": save("TIFF", tiffinfo={270: "a scan", 700: PACKET}),
        "new.avif": save("AVIF", xmp=PACKET),
        "photo.jpg.xmp": PACKET,
        "broken.jpg": b"\xff\xd8\xff\xe1\xff",
        "old.x3f": b"FOVb" + bytes(600),
        "new.jxl": b"\xff\x0a" + bytes(600),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)


def test_fields_and_what_programs_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    assert main(["read", str(tmp_path), "--format", "jsonl"]) == 1
    out, err = capsys.readouterr()
    found = {Path(record["image"]).name: record for record in map(json.loads, out.splitlines())}
    assert "broken.jpg: its captions cannot be read (its segments are damaged)" in err
    assert "error" in found.pop("broken.jpg")
    x3f = tmp_path / "old.x3f"
    assert found.pop(x3f.name)["error"] == f"{x3f}: its captions cannot be read (those of X3F and CRW are not read)"
    texts = {name: {f["field"]: f["text"] for f in record["fields"]} for name, record in found.items()}
    assert texts == {
        "camera.jpg": {"EXIF ImageDescription": "SONY DSC"},
        "press.jpg": {"IPTC Caption-Abstract": HUMAN},
        "comment.jpg": {"XMP dc:description": "in XMP", "JPEG comment": "a comment"},
        "silent.png": {},
        "new.jxl": {},
        "film.gif": {"GIF comment": "a film"},
        "scan.tif": {"EXIF ImageDescription": "a scan", "XMP dc:description": "in XMP"},
        "new.avif": {"XMP dc:description": "in XMP"},
        "photo.jpg.xmp": {"XMP dc:description": "in XMP"},
    }
    assert found["camera.jpg"]["fields"][0]["by"] == "maker"
    assert found["comment.jpg"]["shown"] == {"mwg": "in XMP", "gexiv2": "a comment", "exifr": None, "iptc": None}
    assert found["press.jpg"]["shown"] == {"mwg": HUMAN, "gexiv2": HUMAN, "exifr": None, "iptc": HUMAN}


def test_lines_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "plain.png")
    (tmp_path / "camera.jpg").write_bytes(exif(description="SONY DSC"))
    (tmp_path / "both.jpg").write_bytes(exif(description="Oma\nund Opa"))
    assert main(["read", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(tmp_path / "both.jpg")
    assert lines[1].split() == ["EXIF", "ImageDescription", "Oma\\nund", "Opa"]
    assert "  EXIF ImageDescription                  SONY DSC (a camera's words)" in lines
    assert lines[-2:] == [str(tmp_path / "plain.png"), "  no captions"]
    assert main(["read", str(tmp_path / "absent.jpg")]) == 1
    assert "absent.jpg: no such file" in capsys.readouterr().err
    os.mkfifo(tmp_path / "pipe.xmp")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert main(["read", str(tmp_path)]) == 1
    assert "pipe.jpg: not a regular file\ncaptioner: " in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["read", str(tmp_path / "empty")]) == 2
    assert f"no images in {tmp_path / 'empty'}" in capsys.readouterr().err
