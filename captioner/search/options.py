"""What a search needs beside a model, a folder and a text."""

from __future__ import annotations

from dataclasses import dataclass, field

from captioner.errors import OptionError


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class GalleryOptions:
    """Where encoded pictures are kept.

    Raises:
        OptionError: the cache has no name.
    """

    cache: str = field(
        default="~/.cache/captioner", metadata=_help("folder that keeps the features of encoded pictures")
    )

    def __post_init__(self) -> None:
        """Checks the value."""
        if not self.cache:
            raise OptionError("--cache must name a folder")


@dataclass(frozen=True)
class SearchOptions(GalleryOptions):
    """How to search; each field is a command-line flag.

    Raises:
        OptionError: a value is out of range.
    """

    top: int = field(default=20, metadata=_help("how many pictures to show"))
    recursive: bool = field(default=True, metadata=_help("look into sub-folders"))

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        if self.top < 1:
            raise OptionError(f"--top must be at least 1, not {self.top}")


@dataclass(frozen=True)
class RetrievalOptions(GalleryOptions):
    """How to judge a model by retrieval; each field is a command-line flag.

    Raises:
        OptionError: a value is out of range.
    """

    limit: int | None = field(
        default=None, metadata=_help("take only the first N photos, to have an answer sooner")
    )

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"--limit must be at least 1, not {self.limit}")
