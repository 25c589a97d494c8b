from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.caption import Caption
from captioner.cli import main
from captioner.errors import OptionError
from captioner.images.draw import draw_explanation


def _caption(words: int, attention: bool = True) -> Caption:
    maps = np.random.default_rng(0).random((words, 3, 3), dtype=np.float32)
    text = " ".join(["dog"] * words)
    return Caption(text, -1.0, ("dog",) * words, (-0.5,) * words, -0.5, maps if attention else None)


@pytest.mark.parametrize("words", [0, 1, 3, 4, 30])
def test_there_is_a_panel_for_the_image_and_for_each_word(words: int) -> None:
    image = Image.new("RGB", (200, 100), (200, 40, 40))
    sheet = np.asarray(draw_explanation(image, _caption(words), side=100)).astype(int)
    # Panels are the only places that are neither white nor grey letters: reddish ones are counted by rows.
    reddish = (sheet[..., 0] - sheet[..., 2]) > 20
    assert reddish.any()
    rows = np.diff(reddish.any(axis=1).astype(int))
    assert (rows == 1).sum() == -(-(words + 1) // 4)


def test_a_caption_without_attention_cannot_be_explained() -> None:
    with pytest.raises(OptionError, match="no attention"):
        draw_explanation(Image.new("RGB", (20, 20)), _caption(3, attention=False))


def test_the_command_draws_a_file_and_prints_the_caption(
    attentive_file: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "explained.png"
    code = main(["explain", str(images[0]), "-o", str(output), "--weights", str(attentive_file), "--device", "cpu"])
    text = capsys.readouterr().out.strip()
    assert code == 0
    assert text.endswith(".")
    with Image.open(output) as sheet:
        assert sheet.width > 500
    main(["caption", str(images[0]), "--weights", str(attentive_file), "--device", "cpu", "--format", "text"])
    assert capsys.readouterr().out.strip().endswith(text)


@pytest.mark.parametrize(
    ("image", "output", "complaint"),
    [
        ("image", "out.gif", "must end in .png"),
        ("image", "image", "is the image itself"),
        ("absent.jpg", "out.png", "absent.jpg"),
        ("image", "nowhere/out.png", "nowhere"),
    ],
)
def test_wrong_use_ends_in_one_line(
    attentive_file: Path,
    images: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    image: str,
    output: str,
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "photo.jpg"
    copy.write_bytes(images[0].read_bytes())
    names = {"image": str(copy)}
    flags = ["--weights", str(attentive_file), "--device", "cpu"]
    assert main(["explain", names.get(image, image), "-o", names.get(output, output), *flags]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "has no graphs" not in line]
    assert len(errors) == 1
    assert complaint in errors[0]
    assert copy.read_bytes() == images[0].read_bytes()
    assert sorted(tmp_path.iterdir()) == [copy]


def test_weights_without_attention_are_refused(
    checkpoint_file: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "explained.png"
    flags = ["--weights", str(checkpoint_file), "--device", "cpu"]
    assert main(["explain", str(images[0]), "-o", str(output), *flags]) == 2
    assert "no attention" in capsys.readouterr().err
    assert not output.exists()
