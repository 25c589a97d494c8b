"""Caption many pictures, in order, whatever some of them are like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from captioner.captioner import Caption, Captioner, Pixels
from captioner.decoding.options import DecodingOptions
from captioner.errors import ImageError, OptionError
from captioner.images import DEFAULT_MAX_PIXELS, find_images


@dataclass(frozen=True)
class Result:
    """What became of one picture.

    Attributes:
        image: its path.
        captions: its captions; empty if it failed.
        error: why it failed, in one line; None if it did not.
    """

    image: Path
    captions: tuple[Caption, ...] = ()
    error: str | None = None


def caption_paths(
    captioner: Captioner,
    paths: Iterable[str | Path],
    options: DecodingOptions,
    *,
    recursive: bool = True,
    batch_size: int = 16,
    max_pixels: int | None = None,
) -> Iterator[Result]:
    """Caption pictures and folders of pictures.

    The next batch is read and scaled while the network works on the present one. A picture that cannot
    be read gives a result with an error, and the others go on.

    Args:
        captioner: the model.
        paths: files and folders.
        options: decoding options.
        recursive: look into sub-folders.
        batch_size: pictures that go through the network together; does not change the captions.
        max_pixels: larger pictures are refused; None for the usual limit.

    Yields:
        One result a picture, in the order in which the pictures are found.

    Raises:
        OptionError: ``batch_size`` or ``max_pixels`` is below 1.
        ImageError: there is not one picture.
    """
    limit = DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
    if batch_size < 1 or limit < 1:
        raise OptionError(f"batch_size and max_pixels must be at least 1, not {batch_size} and {limit}")
    paths = list(paths)
    found = find_images(paths, recursive=recursive)

    def load_batch() -> list[tuple[Path, Pixels | ImageError]]:
        return [(path, _load(captioner, path, limit)) for path in islice(found, batch_size)]

    # One reader is enough: it only has to be faster than the network.
    with ThreadPoolExecutor(max_workers=1) as reader:
        batch = load_batch()
        if not batch:
            raise ImageError(f"no pictures in {', '.join(map(str, paths))}")
        while batch:
            following = reader.submit(load_batch)
            yield from _caption_batch(captioner, batch, options)
            batch = following.result()


def _load(captioner: Captioner, path: Path, max_pixels: int) -> Pixels | ImageError:
    try:
        return captioner.preprocess(path, max_pixels=max_pixels)
    except ImageError as error:
        return error


def _caption_batch(
    captioner: Captioner, batch: list[tuple[Path, Pixels | ImageError]], options: DecodingOptions
) -> Iterator[Result]:
    readable = [loaded for _, loaded in batch if not isinstance(loaded, ImageError)]
    captions = iter(captioner.caption(readable, options))
    for path, loaded in batch:
        if isinstance(loaded, ImageError):
            yield Result(path, error=str(loaded))
        else:
            yield Result(path, captions=tuple(next(captions)))
