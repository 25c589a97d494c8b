"""What ``captioner caption`` does with its images, as data."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from captioner.caption import Caption
from captioner.errors import OptionError
from captioner.images import DEFAULT_MAX_PIXELS, find
from captioner.options import check, option

FORMATS = ("text", "jsonl", "csv", "coco", "html", "imagefolder", "sidecar", "xmp", "parquet")
ENGINES = ("local", "ray")
_IN_PARTS = ("parquet", "jsonl")  # what a cluster writes
_FORMAT_OF_ENDING = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".json": "coco",
    ".html": "html",
    ".htm": "html",
}
_ONLY_FOR = (
    (("coco",), "`format` coco", ("annotations",)),
    (("sidecar",), "`format` sidecar", ("sidecar_extension", "if_exists")),
    (("sidecar", "xmp"), "`format` sidecar or xmp", ("sidecar_name",)),
    (("embed",), "`embed`", ("in_place", "embed_iptc")),
)
_TOUCHING = tuple(",.;:!?)")


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a list, counted from 1. Consecutive, so that parts in order are the whole."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``I/N``.

        Raises:
            OptionError: it is not that, or there is no such part.
        """
        match = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
        number, count = (int(part) for part in match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise OptionError(f"`shard` takes I/N with I from 1 to N, such as 1/4, not {text!r}")
        return cls(number, count)

    def of(self, total: int) -> range:
        """Places in a list of ``total`` images."""
        return range(total * (self.number - 1) // self.count, total * self.number // self.count)


@dataclass(frozen=True)
class FolderOptions:
    """What is captioned, and where and how captions are written; flags are made from these fields.

    Raises:
        OptionError: a value is impossible, or two contradict each other.
    """

    from_file: str | None = option(
        None,
        "also caption what this file names, one path a line or ended by NULs; - for standard input",
        metavar="LIST",
    )
    images_from: str | None = option(
        None,
        "caption the images of this COCO file, such as image_info_test2014.json, in the folder PATH (default: beside "
        "it), and write a results file as COCO's server names it (default: captions_test2014_NAME_results.json)",
        metavar="FILE",
    )
    input_tar: tuple[str, ...] = option(
        (),
        "caption what is in these tars, such as 'photos-{000..999}.tar' or 'photos-*.tar.gz', as WebDataset "
        "lays it out; nothing is unpacked",
        metavar="TAR",
    )
    recursive: bool = option(True, "look into sub-folders")
    exclude: tuple[str, ...] = option(
        (),
        "leave out what fits one of these in folders and tars, such as '*-mask.png' or 'old/*'",
        metavar="PATTERN",
    )
    include_all: bool = option(
        False, "do not leave out hidden files, recycle bins, thumbnails of network drives, masks and the like"
    )
    output: str | None = option(
        None,
        "write here, go on where an earlier run stopped (default: standard output, from the start); "
        "with `embed` the folder for copies",
        metavar="FILE",
    )
    format: str | None = option(
        None, "default: by the ending of `output` (.jsonl, .csv, .json for coco, .html), else text", choices=FORMATS
    )
    embed: bool = option(
        False, "write captions into the metadata of images: of copies in the folder `output`, or `in_place`"
    )
    in_place: bool = option(False, "write into the images themselves (`embed`)")
    embed_iptc: bool = option(False, "write IPTC also into JPEGs that have none (`embed`)")
    keep_date: bool = option(True, "leave images the date of their last change (`embed`)")
    overwrite: bool = option(False, "replace captions that are there")
    fail_fast: bool = option(False, "stop at the first image that fails")
    dry_run: bool = option(False, "list what would be done, and do nothing")
    watch: bool = option(False, "go on waiting for new images in the folders; Ctrl-C ends it")
    shard: str | None = option(None, "only part I of N of the images, such as 1/4; see captioner merge", metavar="I/N")
    prepend: str | None = option(None, "text before each caption", metavar="TEXT")
    append: str | None = option(None, "text after each caption", metavar="TEXT")
    log_prob: bool = option(False, "add log P(caption | image) to the text format")
    annotations: str | None = option(
        None, "COCO annotations file that has the ids of the images (coco)", metavar="FILE"
    )
    sidecar_extension: str | None = option(
        None, "ending of the files beside the images (sidecar): .txt", metavar=".EXT"
    )
    sidecar_name: str | None = option(
        None,
        "name the files beside the images photo.txt (stem; default of sidecar) or photo.jpg.txt (full; default of xmp)",
        choices=("stem", "full"),
    )
    if_exists: str | None = option(
        None,
        "what to do with a text that is beside an image already (sidecar): leave it (the default), replace it as "
        "`overwrite` does, or add the caption to its end or to its beginning",
        choices=("skip", "overwrite", "append", "prepend"),
    )
    workers: int | None = option(None, "processes that read images; 0 for none (default: half the processors)", low=0)
    batch_size: int = option(16, "images that go through the network and are written together", low=1)
    max_pixels: int | None = option(None, "refuse images with more pixels than this (default: 100 million)", low=1)
    engine: str = option("local", "ray: on the machines of a Ray cluster; `output` is a folder then", choices=ENGINES)
    ray_address: str | None = option(
        None, "the cluster, such as auto (default: RAY_ADDRESS, else one for this run alone)", metavar="ADDRESS"
    )
    ray_actors: int | None = option(
        None, "how many hold the model (default: as many as there are GPUs, or 7 of 8 processors)", low=1
    )

    def __post_init__(self) -> None:
        check(self)
        if self.shard is not None:
            Shard.parse(self.shard)
        for name in ("prepend", "append"):
            text = getattr(self, name) or ""
            if not text.replace("\u3000", " ").isprintable():
                raise OptionError(f"`{name}` must be one line of text, not {text!r}")
        for kinds, what, names in _ONLY_FOR:
            for name in names:
                if getattr(self, name) not in (None, False) and self.kind not in kinds:
                    raise OptionError(f"`{name}` is for {what}")
        self._check_sidecars()
        self._check_embedding()
        self._check_engine()
        self._check_watch()
        if "-" in self.input_tar:
            raise OptionError("`input_tar` -: standard input is read once, a tar twice", "save it to a file")
        if self.kind == "imagefolder" and Path(self.output or "").name != "metadata.jsonl":
            raise OptionError("`format` imagefolder writes metadata.jsonl", "give `output` PHOTOS/metadata.jsonl")
        if self.log_prob and self.kind in ("coco", "html", "imagefolder", "sidecar", "xmp"):
            raise OptionError(f"`log_prob` has no place in the format {self.kind}")

    def _check_sidecars(self) -> None:
        if self.kind in ("sidecar", "xmp"):
            if self.input_tar:
                raise OptionError(f"`format` {self.kind} writes beside images, not into tars", "name another")
            if self.output is not None:
                raise OptionError(f"`format` {self.kind} writes beside the images", "leave out `output`")
        if self.kind == "sidecar":
            ending = self.sidecar_ending
            if not re.fullmatch(r"\.[^/\0]+", ending) or ending.strip(".") == "" or not ending.isprintable():
                raise OptionError(f"`sidecar_extension` must be like .txt, not {ending!r}")
            if ending.lower().endswith(".xmp"):
                raise OptionError(f"`sidecar_extension` {ending} would not make it XMP", "use `format` xmp")
            if Path("x" + ending).suffix.lower() in find.IMAGE_EXTENSIONS:
                raise OptionError(f"`sidecar_extension` {ending} would make captions look like images")
            if self.overwrite and self.if_exists not in (None, "overwrite"):
                raise OptionError(f"`overwrite` and `if_exists` {self.if_exists} contradict each other")

    def _check_embedding(self) -> None:
        if not self.embed:
            return
        if self.input_tar:
            raise OptionError("`embed` writes into images, not into tars", "leave it out")
        if self.engine == "ray":
            raise OptionError("`embed` is for `engine` local")
        if self.format is not None or self.log_prob:
            raise OptionError("`embed` writes into images", "leave out `format` and `log_prob`")
        if self.in_place == (self.output is not None):
            raise OptionError("`embed` needs a folder for copies (`output` FOLDER), or else `in_place`")

    def _check_engine(self) -> None:
        if self.engine == "local":
            for name in ("ray_address", "ray_actors"):
                if getattr(self, name) is not None:
                    raise OptionError(f"`{name}` is for `engine` ray")
            if self.kind == "parquet":
                raise OptionError("`format` parquet is for `engine` ray")
            return
        if self.kind not in _IN_PARTS:
            raise OptionError(f"`engine` ray writes the formats {' and '.join(_IN_PARTS)}, not {self.kind}")
        if self.output is None:
            raise OptionError("`engine` ray writes into a folder", "name it with `output`")
        if self.workers is not None:
            raise OptionError("`workers` is for `engine` local", "Ray decides how many tasks read images")

    def _check_watch(self) -> None:
        if not self.watch:
            return
        for name in ("from_file", "images_from", "input_tar", "shard", "dry_run"):
            if getattr(self, name):
                raise OptionError(f"`watch` takes folders, not `{name}`", "leave one of them out")
        if self.engine != "local":
            raise OptionError("`watch` is for `engine` local")
        if self.prints:
            raise OptionError("`watch` adds to what is written", "name a file with `output`, or `format` xmp")
        if self.existing == "overwrite":
            raise OptionError("`watch` goes on with what is there", "overwrite it first, in a run without `watch`")

    @property
    def kind(self) -> str:
        """The format, also where it was not named; ``embed`` for none."""
        if self.embed:
            return "embed"
        default = "parquet" if self.engine == "ray" else "text"
        return self.format or _FORMAT_OF_ENDING.get(Path(self.output or "").suffix.lower(), default)

    @property
    def prints(self) -> bool:
        """Whether captions go to standard output."""
        return self.output is None and self.kind not in ("embed", "sidecar", "xmp")

    @property
    def prints_lines(self) -> bool:
        """Whether what is printed of an image depends on its captions and its name alone."""
        return self.prints and self.kind in ("text", "jsonl", "csv")

    @property
    def link_folder(self) -> Path | None:
        """Where links to images start: where the output really lies. None for images in tars, which have no links."""
        if self.input_tar:
            return None
        return Path.cwd() if self.output is None else Path(os.path.realpath(self.output)).parent

    @property
    def sidecar_ending(self) -> str:
        """What a sidecar's name ends in."""
        return ".txt" if self.sidecar_extension is None else self.sidecar_extension

    @property
    def omitted(self) -> find.Omitted:
        """What is left out of folders and tars."""
        return find.Omitted((*self.exclude, *(() if self.include_all else find.CLUTTER)))

    @property
    def existing(self) -> str:
        """What is done with captions that are there: ``skip``, ``overwrite``, ``append`` or ``prepend``."""
        return "overwrite" if self.overwrite else self.if_exists or "skip"

    @property
    def pixel_limit(self) -> int:
        """Pixels above which an image is refused."""
        return DEFAULT_MAX_PIXELS if self.max_pixels is None else self.max_pixels

    def dress(self, caption: Caption) -> Caption:
        """A caption as it is written: with the texts before and after it, without its single words."""
        return Caption(self.dressed(caption.text), caption.log_prob, confidence=caption.confidence)

    def dressed(self, caption: str) -> str:
        """A caption with the texts before and after it, one blank between unless they bring their own."""
        return joined(joined(self.prepend or "", caption), self.append or "")


def joined(before: str, after: str) -> str:
    """Two texts in one line, a blank between them unless they bring their own, or one is empty."""
    touch = not before or not after or before[-1].isspace() or after[0].isspace() or after.startswith(_TOUCHING)
    return before + after if touch else f"{before} {after}"
