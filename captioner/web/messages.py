"""What a visitor is told when something goes wrong: what to do, and never a path or a traceback."""

import logging

from captioner.errors import CaptionerError, ImageError, NoDecoderError, TooManyPixelsError, reworded

_log = logging.getLogger(__name__)
_LONGEST_NAME = 60
# Instead of what only those who run the server can do.
_ADVICE: dict[type[Exception], str] = {
    TooManyPixelsError: "shrink the image",
    NoDecoderError: "save it as JPEG or PNG first",
}
_GENERIC = "Something went wrong on the server, and its log says what. Please try another image."


def for_visitor(error: Exception) -> str:
    """One sentence about a failure. What nobody foresaw goes to the log with its traceback."""
    if not isinstance(error, CaptionerError):
        _log.error("unforeseen failure", exc_info=error)
        return _GENERIC
    advice = _ADVICE.get(type(error), error.advice)
    text = reworded(f"{error.what}; {advice}" if advice else error.what, str)
    if ": " not in text:  # else a file's name stands in front
        text = text[:1].upper() + text[1:]
    if not text.endswith((".", "!", "?")):
        text += "."
    return text if advice or not isinstance(error, ImageError) else f"{text} Choose another file."


def shown_name(name: object) -> str:
    """A visitor's file name in one printable line of reasonable length, without folders."""
    text = str(name or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    if len(text) > _LONGEST_NAME:
        text = f"{text[: _LONGEST_NAME - 12]}\N{HORIZONTAL ELLIPSIS}{text[-11:]}"
    return text or "the image"
