"""Find images or other files: from what a user names to a stream of paths in a stable order."""

import hashlib
import os
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import translate
from itertools import chain, islice
from pathlib import Path

from captioner.errors import ImageError, OptionError, os_errors_as
from captioner.images.open import printable

RAW_EXTENSIONS = frozenset(
    {".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".sr2", ".srf", ".raf"}
    | {".orf", ".rw2", ".rwl", ".pef", ".srw", ".3fr", ".iiq", ".erf", ".mrw", ".x3f", ".gpr"}
)
IMAGE_EXTENSIONS = RAW_EXTENSIONS | frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"}
    | {".tif", ".tiff", ".avif", ".avifs", ".heic", ".heics", ".heif", ".hif", ".jxl"}
)

OTHER_EXTENSIONS = frozenset(
    {".dcr", ".kdc", ".mef", ".mos", ".raw", ".ai", ".eps", ".exr", ".hdr", ".j2k", ".jp2", ".jxr", ".psb", ".psd"}
    | {".svg", ".tga", ".xcf", ".j2c", ".jpf", ".jpx", ".pcx", ".pbm", ".pgm", ".pnm", ".ppm"}
)
"""Of images that nothing here reads, whatever is installed; in folders they are counted only."""

CLUTTER = (
    ".[!.]*",  # hidden: .thumbnails, .Trash-1000, .picasaoriginals, .dtrash, .@__thumb, .ipynb_checkpoints, ._a.jpg
    *("@eaDir", "@tmp", "#recycle", "#snapshot", "SYNOPHOTO_*"),  # network drives of Synology
    *("@Recycle", "@Recently-Snapshot", "@__thumb"),  # of QNAP
    *("$RECYCLE.BIN", "RECYCLER", "RECYCLED", "System Volume Information", "FOUND.[0-9][0-9][0-9]"),  # Windows
    *("__MACOSX", "Network Trash Folder", "Temporary Items", "TheVolumeSettingsFolder", "lost+found"),  # macOS, Linux
    *("~snapshot", "_gsdata_"),  # of NetApp; earlier versions of what GoodSync has copied
    *("*.lrdata", "*.photoslibrary/resources"),  # previews of Lightroom and of Apple's programs
    *("*.photolibrary/Thumbnails", "*.photolibrary/Previews", "*.aplibrary/Thumbnails", "*.aplibrary/Previews"),
    *("*-masklabel.png", "*-condlabel.png"),  # what OneTrainer keeps beside an image
)
"""What systems, network drives and other programs leave among people's images."""

_NUMBER = re.compile("0*([0-9]+)")
_MOST_IN_MEMORY = 50_000  # names of a folder, which take 20 MB
_BLOCK_BYTES = 1 << 16  # of a list; many times the longest path
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Device and inode numbers, which all links to one folder share.
_FolderId = tuple[int, int]


@dataclass
class Omitted:
    """What is left out of folders and archives, and what was.

    A pattern is one of the shell in which ``*`` stands for slashes too, upper case or lower. It may begin at any
    part of a path, or with a slash at the first one, and fits all that is below, as with ``tar --exclude``.

    Attributes:
        patterns: what is left out.
        images: how many images were.
        folders: how many folders were; they are not looked into.
        others: how many images nothing here can read, by kind.
    """

    patterns: tuple[str, ...] = CLUTTER
    images: int = 0
    folders: int = 0
    others: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        rules = (("" if each[:1] == "/" else "(?:.*/)?") + translate(each.strip("/"))[:-2] for each in self.patterns)
        self._fits = re.compile(f"(?s:(?:{'|'.join(rules)})(?:/.*)?)" if self.patterns else "(?!)", re.IGNORECASE)

    def fits(self, path: str) -> bool:
        """Whether something is left out, by its path from the folder that was named, or in its archive."""
        return self._fits.fullmatch(path) is not None

    def __str__(self) -> str:
        """In words; empty if it is nothing."""
        counts = {"image": self.images, "folder": self.folders}
        parts = [f"{count:,} {name}{'s' * (count > 1)}" for name, count in counts.items() if count]
        said = [f"{' and '.join(parts)} left out"] if parts else []
        if self.others:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.others.most_common())
            said.append(f"{self.others.total():,} in formats that are not read ({kinds})")
        return ", ".join(said)


def find_images(
    paths: Iterable[str | os.PathLike[str]],
    *,
    recursive: bool = True,
    extensions: Collection[str] = IMAGE_EXTENSIONS,
    omitted: Omitted | None = None,
) -> Iterator[Path]:
    """Yield the images that paths name: files as they are, folders by the extensions of their files.

    Folders are read one at a time, when their turn comes: first a folder's own files, then its sub-folders,
    each in natural order (`img2` before `img10`). Hidden files, recycle bins, thumbnails of network drives and
    the like are left out of folders, but not where they are named. A folder is entered once, however many links
    lead to it, and a file is yielded once, however often it is named; two links to one file are two files. What
    `open_image` will refuse is yielded as well, so that it gets an error of its own while the others are
    captioned: a named file that is absent, a broken link, a folder that cannot be read, a folder called like an
    image that holds none (or is not looked into).

    Args:
        paths: Files and folders, in the order wanted. A file named here is yielded whatever its extension.
        recursive: Whether to look into the folders inside folders.
        extensions: Those of the files wanted, in lower case; other files than images are found the same way.
        omitted: What is left out of folders, :data:`CLUTTER` unless given; counts what was.

    Yields:
        Paths that begin as the given path did.

    Raises:
        ImageError: A path is an empty string.
    """
    omitted = omitted or Omitted()
    entered: dict[_FolderId, str] = {}  # and how each is called from the one that was named
    named: set[bytes] = set()  # digests, because lists may name millions
    for given in paths:
        if not os.fspath(given):  # `Path("")` would be the current folder.
            raise ImageError("an empty path was given", "name an image or a folder")
        path = Path(given)
        if _is_folder(path):
            for folder, file in _walk(path, entered, named, recursive, extensions, omitted):
                if not named or _digest(folder, file.name) not in named:
                    yield file
            continue
        folder = _folder_id(path.parent)
        key = _digest(folder, str(path) if folder is None else path.name)
        within = None if folder is None else entered.get(folder)
        left_out = within is not None and omitted.fits(within + path.name)
        if key not in named and (left_out or within is None or not is_listed(path.name, extensions)):
            omitted.images -= left_out and is_listed(path.name, extensions)
            named.add(key)
            yield path


def list_images(
    paths: Iterable[str], from_file: str | None, *, recursive: bool, omitted: Omitted | None = None
) -> Iterator[Path]:
    """Yield the images of files, folders and a list, each once, as :func:`find_images` does.

    Args:
        paths: files and folders.
        from_file: a file that names more of them, or ``-`` for standard input; None for none.
        recursive: look into sub-folders.
        omitted: what is left out of folders.

    Raises:
        OptionError: the list cannot be read.
    """
    listed = iter(()) if from_file is None else read_list(from_file)
    first = list(islice(listed, 1))  # a list that cannot be read is reported at once
    return find_images(chain(paths, first, listed), recursive=recursive, omitted=omitted)


def read_list(name: str) -> Iterator[str]:
    """Yield the names in a list: ended by NULs if it holds any, else one a line.

    A byte-order mark and carriage returns at the ends of lines are dropped, and so are empty lines.

    Args:
        name: the file, or ``-`` for standard input.

    Raises:
        OptionError: it cannot be read.
    """
    with os_errors_as(OptionError, f"`from_file` {printable(name)}: "), ExitStack() as stack:
        if name == "-" and sys.stdin is None:
            raise OptionError("`from_file` -: standard input is closed")
        file = sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
        block = file.read(_BLOCK_BYTES).removeprefix(_BYTE_ORDER_MARK)
        end = b"\0" if b"\0" in block else b"\n"
        dropped = b"" if end == b"\0" else b"\r"
        rest = b""
        while block:
            *whole, rest = (rest + block).split(end)
            yield from (os.fsdecode(part) for each in whole if (part := each.removesuffix(dropped)))
            block = file.read(_BLOCK_BYTES)
        if last := rest.removesuffix(dropped):
            yield os.fsdecode(last)


def _walk(
    top: Path,
    entered: dict[_FolderId, str],
    named: Collection[bytes],
    recursive: bool,
    extensions: Collection[str],
    omitted: Omitted,
) -> Iterator[tuple[_FolderId | None, Path]]:
    """Yield (folder's identity, file) for the images in folders that have not been entered before."""
    waiting = [(top, "")]
    while waiting:
        folder, within = waiting.pop()
        identity = _folder_id(folder)
        if identity in entered:
            continue
        if identity is not None:
            entered[identity] = within
        try:
            with os.scandir(folder) as entries:
                listed = _in_order((entry.name, _is_folder(entry)) for entry in entries)
        except OSError:
            yield None, folder
            continue
        folders: list[tuple[Path, str]] = []
        images = False
        for name, is_folder in listed:
            if omitted.fits(within + name):
                known = _folder_id(folder / name) in entered if is_folder else _digest(identity, name) in named
                omitted.folders += is_folder and not known
                omitted.images += not is_folder and not known and is_listed(name, extensions)
                continue
            if is_folder:
                folders.append((folder / name, f"{within}{name}/"))
            if is_listed(name, extensions):
                images = True
                if not (is_folder and recursive):
                    yield identity, folder / name
            elif not is_folder and is_listed(name, OTHER_EXTENSIONS):
                omitted.others[name.rpartition(".")[2].upper()] += 1
        if is_listed(folder.name, extensions) and not folders and not images:
            yield identity, folder  # Its name promises an image, and nothing else would report it.
        if recursive:
            waiting.extend(reversed(folders))


def _in_order(entries: Iterator[tuple[str, bool]]) -> Iterable[tuple[str, bool]]:
    """Sort what is in a folder: names, and whether they are folders; a million of them on disk, not in memory."""
    some = list(islice(entries, _MOST_IN_MEMORY))
    if len(some) < _MOST_IN_MEMORY:
        return sorted(some, key=lambda entry: natural_order(entry[0]))
    rows = ((os.fsencode(natural_order(name)), os.fsencode(name), folder) for name, folder in chain(some, entries))
    names = sqlite3.connect("", isolation_level=None)  # a file without a name, which goes with the connection
    names.execute("CREATE TABLE names (key BLOB, name BLOB, folder INTEGER, PRIMARY KEY (key, name)) WITHOUT ROWID")
    names.execute("BEGIN")
    names.executemany("INSERT INTO names VALUES (?, ?, ?)", rows)
    found = names.execute("SELECT name, folder FROM names ORDER BY key, name")
    return ((os.fsdecode(name), bool(folder)) for name, folder in found)


def natural_order(name: str) -> str:
    """Key to sort file names by, such that `img2` comes before `img10`."""
    # Numbers by their length and then their digits, before all letters; at the end the name, before numbers.
    key = _NUMBER.sub(lambda number: f"\1{chr(len(number[1]))}{number[1]}", _cut(name)[0].casefold())
    return f"{key}\0{name}"


def is_listed(name: str, extensions: Collection[str] = IMAGE_EXTENSIONS) -> bool:
    """Whether a name is that of an image, by its extension."""
    return _cut(name)[1].lower() in extensions


def _cut(name: str) -> tuple[str, str]:
    """What pathlib calls stem and suffix; asked of a million names, for which it takes ten times as long."""
    name = name.rstrip("/").rpartition("/")[2]
    point = name.rfind(".")
    return (name[:point], name[point:]) if 0 < point < len(name) - 1 else (name, "")


def _digest(folder: _FolderId | None, name: str) -> bytes:
    return hashlib.blake2b(os.fsencode(f"{folder}/{name}"), digest_size=12).digest()


def _is_folder(path: Path | os.DirEntry[str]) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # A link to itself, a forbidden folder above it, a null character.
        return False


def _folder_id(folder: Path) -> _FolderId | None:
    """Return a folder's identity, or None where there is no such folder."""
    try:
        status = folder.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
