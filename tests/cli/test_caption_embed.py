"""``captioner caption --embed`` over folders as they are found in life."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from captioner.cli import main
from captioner.embed.embedding import read_texts
from captioner.images import open_image
from tests.bulk.folders import contents, save_image
from tests.cli.conftest import Command


def test_captions_inside_every_good_image_and_nothing_else_touched(
    command: Command, faults: tuple[Path, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, expected = faults
    Image.new("RGB", (5, 4)).save(folder / "film.gif")
    before = contents(folder)
    assert main(command(folder, "--embed", "--in-place", "--workers", "2")) == 1
    said = capsys.readouterr().err
    assert "film.gif: no caption can be embedded (its format is GIF, not JPEG, PNG or WebP)" in said
    assert "captioner: 11 captioned, 0 skipped, 9 failed, " in said
    after = contents(folder)
    good = {name for name, reason in expected.items() if not reason}
    assert {name for name in after if after[name] != before.get(name)} == good
    for name in good:
        with (folder / name).open("rb") as file:
            assert len(set(read_texts(file, name))) == 1
        assert open_image(after[name]).tobytes() == open_image(before[name]).tobytes()


def test_images_on_a_full_disk_stay_as_they_are(
    command: Command, little_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        save_image(little_disk / f"{number}.png", number)
    before = contents(little_disk)
    (little_disk / "filler").write_bytes(bytes(100 * 1024 - 12_288))  # three images have a page each
    assert main(command(little_disk, "--embed", "--in-place", "--workers", "0", "-q")) == 2
    assert capsys.readouterr().err.startswith(f"captioner: error: cannot write {little_disk}/0.png: No space")
    (little_disk / "filler").unlink()
    assert contents(little_disk) == before
    assert main(command(little_disk, "--embed", "--in-place", "--workers", "0", "-q")) == 0
