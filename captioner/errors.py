"""Every failure that a user can cause is one of these; each carries one line that says what to do.

The doors (command line, page) print the message and nothing else. Anything that is not a
:class:`CaptionerError` is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence


class CaptionerError(Exception):
    """A failure with a one-line message that names the file or option and says what to do."""


class OptionError(CaptionerError):
    """An option has an impossible value, or two options contradict each other."""


class ImageError(CaptionerError):
    """A picture is absent, unreadable, broken or too large."""


class EncoderError(CaptionerError):
    """An encoder is unknown, or its pretrained weights cannot be had."""


class CheckpointError(CaptionerError):
    """A checkpoint file is absent, broken, foreign, or does not fit its own configuration."""


class DatasetError(CaptionerError):
    """A data set is absent, malformed, empty, or its captions and photos do not meet."""


class EvaluationError(CaptionerError):
    """Captions and references do not fit together, or a results file is malformed."""


class OutputError(CaptionerError):
    """Captions cannot be written where they are wanted, or would mix with others."""


class TrainingError(CaptionerError):
    """Training cannot start or go on (not-a-number loss, full disk, nothing to resume)."""


class CacheError(CaptionerError):
    """The cache of encoded pictures cannot be written."""


class BusyError(CaptionerError):
    """A server has more to do than it can; the same request succeeds later."""


class UnknownWordsError(CaptionerError):
    """A text holds words that the model does not know.

    Attributes:
        words: each of them once, in the order of the text.
    """

    def __init__(self, message: str, words: Sequence[str]) -> None:
        super().__init__(message)
        self.words = tuple(words)
