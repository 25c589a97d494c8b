"""Every failure that a user can cause is one of these; each carries one line that says what to do.

The doors (command line, page) print the message and nothing else. Anything that is not a
:class:`CaptionerError` is a bug and keeps its traceback.

Messages name an option by its field in Python, between backticks: `` `beam_size` ``. Each door spells these
names its own way with :func:`reworded`, the command line as ``--beam-size``.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

_EXTRAS = {"ray": "ray", "pyarrow": "ray", "watchfiles": "watch"} | dict.fromkeys(
    ("torch", "torchvision", "efficientnet_lite_pytorch", "onnx", "onnxscript"), "train"
)
# Not part of a file name.
_OPTION = re.compile(r"(?<![^\s(])`([a-z][a-z0-9_]*)`(?![^\s.,:;)]|\.\w)")


class CaptionerError(Exception):
    """A failure with a one-line message that names the file or option and says what to do.

    ``str()`` gives both parts, with a semicolon between them.

    Attributes:
        what: what has failed.
        advice: what to do about it; may be empty.
    """

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(what, advice)
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.what}; {self.advice}" if self.advice else self.what


@contextmanager
def os_errors_as(kind: type[CaptionerError], before: str, after: str = "", *, advice: str = "") -> Iterator[None]:
    """Turn a failure of the operating system inside the block into one of ours.

    Args:
        kind: what to raise.
        before: what has failed, such as ``"cannot write a.csv: "``; the system's reason comes next.
        after: what follows the reason.
        advice: what to do about it.
    """
    try:
        yield
    except OSError as error:
        raise kind(f"{before}{error.strerror or error}{after}", advice) from error


@contextmanager
def needing(what: str) -> Iterator[None]:
    """Say which extra to install where an import inside the block finds no torch, onnx or Ray.

    Args:
        what: what needs it, such as ``"`runtime` torch"``.

    Raises:
        CaptionerError: a package of an extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        raise CaptionerError(f"{what} needs {package}: pip install 'captioner[{_EXTRAS[package]}]'") from error


def reworded(text: str, spell: Callable[[str], str]) -> str:
    """Spell the options that a message names another way.

    Args:
        text: a message in which options stand between backticks.
        spell: gives what stands for the name of an option, backticks included.
    """
    return _OPTION.sub(lambda found: spell(found[1]), text)


class OptionError(CaptionerError):
    """An option has an impossible value, or two options contradict each other."""


class ImageError(CaptionerError):
    """An image is absent, unreadable, broken or too large."""


class TooManyPixelsError(ImageError):
    """An image has more pixels than the limit."""


class NoDecoderError(ImageError):
    """An image's format needs a package that is not installed."""


class EncoderError(CaptionerError):
    """An encoder is unknown, or its pretrained weights are not available."""


class CheckpointError(CaptionerError):
    """A checkpoint file is absent, broken, foreign, or does not fit its own configuration."""


class DatasetError(CaptionerError):
    """A data set is absent, malformed, empty, or its captions and images do not meet."""


class NoDatasetError(DatasetError):
    """The files of a kind of data set are not where they were looked for."""


class EvaluationError(CaptionerError):
    """Captions and references do not fit together, or a results file is malformed."""


class OutputError(CaptionerError):
    """Captions cannot be written where they are wanted, or would mix with others."""


class TrainingError(CaptionerError):
    """Training cannot start or go on (not-a-number loss, full disk, nothing to resume)."""


class CacheError(CaptionerError):
    """The cache of encoded images cannot be written."""


class BusyError(CaptionerError):
    """A server has more to do than it can; the same request succeeds later."""


class UnknownWordsError(CaptionerError):
    """A text holds words that the model does not know.

    Attributes:
        words: each of them once, in the order of the text.
    """

    def __init__(self, what: str, words: Sequence[str], advice: str = "") -> None:
        super().__init__(what, advice)
        self.words = tuple(words)
