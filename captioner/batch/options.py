"""What ``captioner caption`` does with its pictures, as data."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captioner.errors import OptionError

FORMATS = ("text", "jsonl", "csv", "coco", "html", "sidecar")
_FORMAT_OF_ENDING = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".json": "coco",
    ".html": "html",
    ".htm": "html",
}
_TOUCHING = tuple(",.;:!?)")


def _option(default: Any, text: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a list, counted from 1. Consecutive, so that parts in order are the whole."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``I/N``.

        Raises:
            OptionError: it is not that, or there is no such part.
        """
        match = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
        number, count = (int(part) for part in match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise OptionError(f"--shard takes I/N with I from 1 to N, such as 1/4, not {text!r}")
        return cls(number, count)

    def of(self, total: int) -> range:
        """Places in a list of ``total`` pictures."""
        return range(total * (self.number - 1) // self.count, total * self.number // self.count)


@dataclass(frozen=True)
class FolderOptions:
    """What is captioned, and where and how captions are written; flags are made from these fields.

    Raises:
        OptionError: a value is impossible, or two contradict each other.
    """

    from_file: str | None = _option(
        None,
        "also caption what this file names, one path a line or ended by NULs; - for standard input",
        metavar="LIST",
    )
    recursive: bool = _option(True, "look into sub-folders")
    output: str | None = _option(
        None,
        "write here, go on where an earlier run stopped (default: standard output, from the start); "
        "with --embed the folder for copies",
        metavar="FILE",
    )
    format: str | None = _option(
        None,
        "default: by the ending of --output (.jsonl, .csv, .json for coco, .html), else text",
        choices=FORMATS,
    )
    embed: bool = _option(
        False, "write captions into the metadata of pictures: of copies in the folder --output, or --in-place"
    )
    in_place: bool = _option(False, "write into the pictures themselves (--embed)")
    overwrite: bool = _option(False, "replace captions that are there")
    fail_fast: bool = _option(False, "stop at the first picture that fails")
    dry_run: bool = _option(False, "list what would be done, and do nothing")
    shard: str | None = _option(
        None, "only part I of N of the pictures, such as 1/4; see captioner merge", metavar="I/N"
    )
    prepend: str | None = _option(None, "text before each caption", metavar="TEXT")
    append: str | None = _option(None, "text after each caption", metavar="TEXT")
    log_prob: bool = _option(False, "add log P(caption | picture) to the text format")
    annotations: str | None = _option(
        None, "COCO annotations file that has the ids of the pictures (coco)", metavar="FILE"
    )
    sidecar_extension: str | None = _option(
        None, "ending of the files beside the pictures (sidecar): .txt", metavar=".EXT"
    )
    workers: int | None = _option(
        None, "processes that read pictures; 0 for none (default: half the processors)"
    )
    batch_size: int = _option(16, "pictures that go through the network and are written together")
    max_pixels: int | None = _option(
        None, "refuse pictures with more pixels than this (default: 100 million)"
    )

    def __post_init__(self) -> None:
        if self.format not in (None, *FORMATS):
            raise OptionError(f"--format must be one of {', '.join(FORMATS)}, not {self.format!r}")
        if self.batch_size < 1 or self.pixel_limit < 1:
            limits = f"{self.batch_size} and {self.pixel_limit}"
            raise OptionError(f"batch_size and max_pixels must be at least 1, not {limits}")
        if self.workers is not None and self.workers < 0:
            raise OptionError(f"--workers must be at least 0, not {self.workers}")
        if self.shard is not None:
            Shard.parse(self.shard)
        for name in ("prepend", "append"):
            text = getattr(self, name) or ""
            if not text.replace("\u3000", " ").isprintable():
                raise OptionError(f"--{name} must be one line of text, not {text!r}")
        self._check_sidecars()
        self._check_embedding()
        if self.annotations is not None and self.kind != "coco":
            raise OptionError("--annotations is for --format coco")
        if self.log_prob and self.kind in ("coco", "html", "sidecar"):
            raise OptionError(f"--log-prob has no place in the format {self.kind}")

    def _check_sidecars(self) -> None:
        from captioner.images import IMAGE_EXTENSIONS  # not for a mere --help

        if self.kind == "sidecar":
            if self.output is not None:
                raise OptionError("--format sidecar writes beside the pictures; leave out --output")
            ending = self.sidecar_ending
            if not re.fullmatch(r"\.[^/\0]+", ending) or ending.strip(".") == "" or not ending.isprintable():
                raise OptionError(f"--sidecar-extension must be like .txt, not {ending!r}")
            if Path("x" + ending).suffix.lower() in IMAGE_EXTENSIONS:
                raise OptionError(f"--sidecar-extension {ending} would make captions look like pictures")
        elif self.sidecar_extension is not None:
            raise OptionError("--sidecar-extension is for --format sidecar")

    def _check_embedding(self) -> None:
        if not self.embed:
            if self.in_place:
                raise OptionError("--in-place is for --embed")
            return
        if self.format is not None or self.log_prob:
            raise OptionError("--embed writes into pictures; leave out --format and --log-prob")
        if self.in_place == (self.output is not None):
            raise OptionError("--embed needs a folder for copies (--output FOLDER), or else --in-place")

    @property
    def kind(self) -> str:
        """The format, also where it was not named; ``embed`` for none."""
        if self.embed:
            return "embed"
        if self.format is not None:
            return self.format
        return _FORMAT_OF_ENDING.get(Path(self.output or "").suffix.lower(), "text")

    @property
    def prints(self) -> bool:
        """Whether captions go to standard output."""
        return self.output is None and self.kind not in ("embed", "sidecar")

    @property
    def output_folder(self) -> Path:
        """Where the output really lies; the current folder for standard output."""
        return Path(os.path.realpath(self.output)).parent if self.output is not None else Path.cwd()

    @property
    def sidecar_ending(self) -> str:
        """What a sidecar's name ends in."""
        return ".txt" if self.sidecar_extension is None else self.sidecar_extension

    @property
    def pixel_limit(self) -> int:
        """Pixels above which a picture is refused."""
        from captioner.images import DEFAULT_MAX_PIXELS

        return DEFAULT_MAX_PIXELS if self.max_pixels is None else self.max_pixels

    def dressed(self, caption: str) -> str:
        """A caption with the texts before and after it, one blank between unless they bring their own."""
        before, after = self.prepend or "", self.append or ""
        if before and not before[-1].isspace():
            before += " "
        if after and not (after[0].isspace() or after.startswith(_TOUCHING)):
            after = " " + after
        return before + caption + after
