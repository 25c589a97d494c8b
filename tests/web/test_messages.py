from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import CaptionerError, ImageError, NoDecoderError, TooManyPixelsError
from captioner.html import shown_name
from captioner.web.render import for_visitor


def test_a_known_failure_is_told_as_a_sentence() -> None:
    assert for_visitor(CaptionerError("choose an image first")) == "Choose an image first."
    assert for_visitor(ImageError("my dog.jpg: file is empty")) == ("my dog.jpg: file is empty; choose another file.")
    advised = ImageError("a.svg: SVG drawings are not supported", "convert it to PNG first")
    assert for_visitor(advised) == "a.svg: SVG drawings are not supported; convert it to PNG first."


def test_advice_for_operators_is_not_for_visitors() -> None:
    heic = NoDecoderError("a.heic: HEIC images cannot be read", "run: pip install 'captioner[heif]'")
    assert for_visitor(heic) == ("a.heic: HEIC images cannot be read; save it as JPEG or PNG first.")
    large = TooManyPixelsError("a.png: 9 x 9 pixels are more than the limit", "raise the limit or shrink the image")
    assert for_visitor(large) == "a.png: 9 x 9 pixels are more than the limit; shrink the image."


def test_a_bug_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        text = for_visitor(ZeroDivisionError("/secret/path"))
    assert "secret" not in text
    assert "/secret/path" in caplog.text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\dog.jpg", "dog.jpg"),
        ("a\nb\x00\u202e.jpg", "a\ufffdb\ufffd\ufffd.jpg"),
        ("", "the image"),
        (None, "the image"),
        ("folder/", "folder"),
        ("<b>x</b>.jpg", "b>.jpg"),
    ],
)
def test_names_become_one_printable_line(name: object, shown: str) -> None:
    assert shown_name(name) == shown


@given(st.text())
def test_any_name_is_short_and_printable(name: str) -> None:
    shown = shown_name(name)
    assert shown.isprintable()
    assert 0 < len(shown) <= 60
    assert "/" not in shown
    assert shown_name(shown) == shown


def test_a_long_name_keeps_its_extension() -> None:
    assert shown_name("x" * 300 + ".jpeg").endswith(".jpeg")
