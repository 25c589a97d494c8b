"""How to search and how to judge a search, as data; imports no torch."""

from dataclasses import dataclass

from captioner.errors import OptionError
from captioner.options import check, option


@dataclass(frozen=True)
class GalleryOptions:
    """Where encoded images are kept.

    Raises:
        OptionError: the cache has no name.
    """

    cache: str = option("~/.cache/captioner", "folder that keeps the features of encoded images")

    def __post_init__(self) -> None:
        """Check the values."""
        check(self)
        if not self.cache:
            raise OptionError("`cache` must name a folder")


@dataclass(frozen=True)
class SearchOptions(GalleryOptions):
    """How to search; each field is a command-line flag.

    Raises:
        OptionError: a value is out of range.
    """

    top: int = option(20, "how many images to show", low=1)
    recursive: bool = option(True, "look into sub-folders")


@dataclass(frozen=True)
class RetrievalOptions(GalleryOptions):
    """How to judge a model by retrieval; each field is a command-line flag.

    Raises:
        OptionError: a value is out of range.
    """

    limit: int | None = option(None, "take only the first N images, to have an answer sooner", low=1)
