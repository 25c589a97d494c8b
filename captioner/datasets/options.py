"""Which data sets to read and where they lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from captioner.errors import OptionError

KINDS = ("coco", "karpathy", "flickr8k", "table")
"""Every kind of data set that can be read; one module of this package each."""


@dataclass(frozen=True)
class Source:
    """One data set on disk: its kind, and the folder, captions and photos as far as they were named."""

    kind: str
    folder: Path | None
    annotations: Path | None
    images: Path | None
    holdout: float
    holdout_seed: int


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class DatasetOptions:
    """One data set, or several that are joined; each field is a command-line flag.

    Raises:
        OptionError: for an unknown kind, a missing folder, or flags that contradict each other.
    """

    dataset: tuple[str, ...] = field(
        metadata=_help(f"KIND or KIND:DIR, KIND being one of {', '.join(KINDS)}; several are joined")
    )
    data: str | None = field(default=None, metadata=_help("folder of the data set given without :DIR"))
    annotations: str | None = field(
        default=None, metadata=_help("file or folder with the captions (default: the usual place in DIR)")
    )
    images: str | None = field(
        default=None, metadata=_help("folder with the photos (default: the usual place in DIR)")
    )
    skip_missing: bool = field(default=False, metadata=_help("go on without photos that are absent"))
    holdout: float = field(
        default=0.05,
        metadata=_help("share of pictures held out for validation from a table without a split column"),
    )
    holdout_seed: int = field(default=0, metadata=_help("which pictures are held out"))

    def __post_init__(self) -> None:
        """Checks that every data set has a known kind and exactly one place."""
        if not self.dataset:
            raise OptionError(f"--dataset is missing; choose from {', '.join(KINDS)}")
        if not 0 <= self.holdout < 1:
            raise OptionError(f"--holdout {self.holdout}: must be at least 0 and below 1")
        for entry in self.dataset:
            self._check_entry(entry)
        if len(set(self.dataset)) < len(self.dataset):
            raise OptionError(f"--dataset {' '.join(self.dataset)}: the same data set is given twice")

    def _check_entry(self, entry: str) -> None:
        kind, colon, folder = entry.partition(":")
        if kind not in KINDS:
            raise OptionError(f"--dataset {entry}: unknown kind '{kind}'; choose from {', '.join(KINDS)}")
        if colon and not folder:
            raise OptionError(f"--dataset {entry}: the folder after the colon is missing")
        if len(self.dataset) > 1:
            if not colon:
                raise OptionError(f"--dataset {entry}: with several data sets give each as {kind}:DIR")
            for flag in ("data", "annotations", "images"):
                if getattr(self, flag) is not None:
                    raise OptionError(f"--{flag} works with one data set only; {len(self.dataset)} are given")
        elif colon and self.data is not None:
            raise OptionError(f"--dataset {entry} names a folder already; leave out --data {self.data}")
        elif not colon and self.data is None and self.annotations is None:
            raise OptionError(f"--dataset {entry}: say where it is with --data DIR or {kind}:DIR")

    def sources(self) -> tuple[Source, ...]:
        """The data sets in the order given."""
        sources = []
        for entry in self.dataset:
            kind, _, folder = entry.partition(":")
            sources.append(
                Source(
                    kind=kind,
                    folder=_path(folder or self.data),
                    annotations=_path(self.annotations),
                    images=_path(self.images),
                    holdout=self.holdout,
                    holdout_seed=self.holdout_seed,
                )
            )
        return tuple(sources)


def _path(text: str | None) -> Path | None:
    # The shell leaves the tilde of "coco:~/data" alone.
    return None if text is None else Path(text).expanduser()
