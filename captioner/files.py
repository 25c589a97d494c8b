"""Writing files, plots among them, so that a crash never leaves half of one behind."""

import importlib.util
import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from captioner.errors import CaptionerError, OptionError, os_errors_as

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
_OPEN_FILES = Path("/proc/self/fd")


def check_output(name: str, file: str | None) -> None:
    """Refuse, before the work, a file that could not be written after it.

    Args:
        name: the option that names it.
        file: its name, or None where it was not asked for.

    Raises:
        OptionError: it is a folder, or its folder is absent.
    """
    if file is None:
        return
    if Path(file).is_dir():
        raise OptionError(f"`{name}` {file}: is a folder", "name a file")
    if not Path(file).parent.is_dir():
        raise OptionError(f"`{name}` {file}: there is no folder {Path(file).parent}")


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file whole or not at all, replacing one that is there.

    After a failure, Ctrl-C included, the file is as it was and nothing else is left.

    Args:
        path: where the file goes; its folder must exist.
        content: bytes, or text that is written as UTF-8.

    Raises:
        CaptionerError: the folder is absent or cannot be written to, or the disk is full.
    """
    with replacing(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def status_of_writable(path: Path, name: str) -> os.stat_result:
    """The status of a file that may be replaced, which the system would allow with a write-protected one too.

    Raises:
        CaptionerError: it is write-protected.
    """
    status = path.stat()
    if not status.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        raise CaptionerError(f"{name}: is write-protected, and stays as it is")
    return status


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of another at the end: whole or not at all.

    After a failure, Ctrl-C included, the file is as it was and nothing else is left. Where the system has
    files without a name (Linux), ``kill -9`` leaves no half of a file either, and nothing beside a new one.
    Replacing a file takes two steps: a kill between them leaves the new one whole under a temporary name.

    Args:
        path: where the file goes; its folder must exist.

    Raises:
        CaptionerError: the folder is absent or cannot be written to, the file is write-protected, or the disk is full.
    """
    target = Path(path)
    # in the same folder, because only within one file system is the replacement a single step
    temporary = target.parent / f".captioner-{secrets.token_hex(8)}.tmp"
    with os_errors_as(CaptionerError, f"cannot write {target}: "):
        try:
            nameless = _nameless(target.parent)
            with nameless or temporary.open("xb") as file:
                with suppress(FileNotFoundError):  # what others may not read stays so
                    set_mode(file, status_of_writable(target, str(target)).st_mode)
                yield file
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave the new name without content
                if nameless:
                    if _name(file, target):
                        return
                    _name(file, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def _nameless(folder: Path) -> BinaryIO | None:
    """Open a new file that gets its name when it is whole, so that even ``kill -9`` leaves no half of it.

    None where the system or the file system does not offer that.
    """
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not _OPEN_FILES.is_dir():
        return None
    try:
        return os.fdopen(os.open(folder, flag | os.O_RDWR, 0o666), "wb")
    except OSError:
        return None


def _name(file: BinaryIO, path: Path) -> bool:
    """Name a file that has no name yet; False if that name is taken."""
    folder = os.open(_OPEN_FILES, os.O_RDONLY)
    try:  # Python follows the link to the open file only with a folder given
        os.link(str(file.fileno()), path, src_dir_fd=folder)
        return True
    except FileExistsError:
        return False
    finally:
        os.close(folder)


def resemble(file: BinaryIO, path: Path, before: os.stat_result) -> None:
    """Give a file the owner, permissions and extended attributes of the one that it replaces."""
    with suppress(AttributeError, OSError):  # only an administrator may give files away
        os.fchown(file.fileno(), before.st_uid, before.st_gid)
    set_mode(file, before.st_mode)
    with suppress(AttributeError, OSError):  # no such thing on this system, or here
        for name in os.listxattr(path):
            with suppress(OSError):  # some are the system's own
                os.setxattr(file.fileno(), name, os.getxattr(path, name))


def set_mode(file: BinaryIO, mode: int) -> None:
    """Give an open file permissions."""
    with suppress(AttributeError, OSError):  # no such thing on this system, or here
        os.fchmod(file.fileno(), stat.S_IMODE(mode))


def check_plotting(instead: str) -> None:
    """Refuse, before the work, plots that could not be drawn after it: matplotlib is an extra.

    Args:
        instead: what to do without a plot.

    Raises:
        OptionError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise OptionError(f"the plot needs matplotlib: pip install 'captioner[train]', or {instead}")


def write_figure(path: str | Path, figure: Any) -> None:
    """Write a figure of matplotlib in the format of the file's ending, whole or not at all.

    Raises:
        CaptionerError: the file cannot be written.
    """
    image = io.BytesIO()
    figure.savefig(image, format=Path(path).suffix[1:].lower(), dpi=120)
    write_atomically(path, image.getvalue())
