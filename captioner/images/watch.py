"""Notice new images in folders, as soon as they are whole."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError, needing, os_errors_as
from captioner.images.find import Omitted, is_listed

_REST = 2.0  # seconds without a change, after which a file counts as whole
_BETWEEN_LOOKS = 500  # milliseconds
_ADVICE = "where there are too many folders, the administrator raises fs.inotify.max_user_watches"


def at_rest(path: Path) -> bool:
    """Whether a file has not changed for two seconds, so that no program is writing it.

    A clock of a network drive that differs from this one makes no file wait for ever. A path that cannot be looked
    at is at rest: whoever reads it will say what is wrong.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return True
    # Programs that copy a file give it the date of the original; the time of its last change in any way is new.
    now = time.time()
    return not any(0 <= now - changed < _REST for changed in (status.st_mtime, status.st_ctime))


def arrivals(folders: Sequence[str], omitted: Omitted, *, recursive: bool = True) -> Iterator[None]:
    """Wait for images in folders.

    Args:
        folders: what is watched.
        omitted: what is left out of them.
        recursive: watch the folders inside, too.

    Yields:
        At first for what is there, and then whenever some images have come or changed and are :func:`at_rest`.
        Between one time and the next nothing is missed. Other files, such as captions, do not count.

    Raises:
        CaptionerError: watchfiles is not installed, a folder has gone, or the system refuses to watch.
    """
    with needing("`watch`"):
        from watchfiles import Change, watch

    tops = [os.path.realpath(folder) for folder in folders]

    def matters(change: Change, path: str) -> bool:
        # Of a folder that is moved in as a whole nothing but its own name is reported.
        wanted = change != Change.deleted and (is_listed(path) or Path(path).is_dir())
        return wanted and not any(omitted.fits(os.path.relpath(path, top)) for top in tops if path.startswith(top))

    looks: dict[str, Any] = {"rust_timeout": _BETWEEN_LOOKS, "yield_on_timeout": True, "recursive": recursive}
    with os_errors_as(CaptionerError, "cannot watch the folders: ", advice=_ADVICE):
        while True:
            waiting, began = set(tops), None
            try:
                for changes in watch(*tops, watch_filter=matters, ignore_permission_denied=True, **looks):
                    if gone := [folder for folder in folders if not Path(folder).is_dir()]:
                        raise CaptionerError(f"{gone[0]}: has gone", "give the same command when it is there again")
                    waiting |= {path for _, path in changes}
                    # What was written when the watch began is at rest, or has been reported, so much later.
                    began = began or time.monotonic()
                    rests = time.monotonic() - began > _REST
                    if rested := {path for path in waiting if rests and at_rest(Path(path))}:
                        waiting -= rested
                        yield
            except RuntimeError as error:  # a name that is no UTF-8 ends the watch: everything is looked at again
                if "decode" not in str(error):
                    raise CaptionerError(f"cannot watch the folders: {error}") from error
            except UnicodeEncodeError as error:
                raise CaptionerError("cannot watch folders whose paths are no UTF-8", "rename them") from error
