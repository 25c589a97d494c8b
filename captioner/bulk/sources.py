"""The images that a run is about: from files, folders, lists and tars."""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from captioner.bulk.options import FolderOptions, Shard
from captioner.bulk.store import Key, kept_somewhere, packed, unpacked
from captioner.errors import ImageError, OptionError
from captioner.images.find import list_images
from captioner.images.tars import Item, Member, Tars, expand


class Inputs:
    """The images of a run, in order.

    They are listed as they are asked for; or first of all, on disk, so that ten million fit: where they have keys,
    where a shard takes its part, and to be asked for again.

    Args:
        paths: files and folders.
        options: tars, lists, and which shard.
        key: of an image by its name, what only one of them may have; None where images have none.
        wanted: whether a file is taken; those that are not are left for another run.
        again: they are asked for several times.

    Attributes:
        whole: how much all shards have to do; empty if there is but one part.
        omitted: what was left out of folders and tars.

    Raises:
        OptionError: a list cannot be read, or options contradict each other.
        ImageError: there is not one image.
    """

    def __init__(
        self,
        paths: Sequence[str],
        options: FolderOptions,
        key: Callable[[str], Key | None] | None = None,
        wanted: Callable[[Path], bool] = lambda path: True,
        *,
        again: bool = False,
    ) -> None:
        if options.input_tar and (paths or options.from_file is not None):
            raise OptionError("`input_tar` comes without other images", "give these a run of their own")
        self.whole: dict[str, int] = {}
        shard = None if options.shard is None else Shard.parse(options.shard)
        tars = expand(options.input_tar)
        if shard is not None and len(tars) >= shard.count:
            # Whole tars for each, so that no shard has to look into those of others.
            self.whole = {"tars": len(tars)}
            places, shard = shard.of(len(tars)), None
            tars = tars[places.start : places.stop]
        self.omitted = options.omitted
        self._tars = Tars(tars, self.omitted)
        self.wanted = wanted
        found = list_images(paths, options.from_file, recursive=options.recursive, omitted=self.omitted)
        items: Iterator[Item] = iter(self._tars) if tars else (path for path in found if wanted(path))
        first = next(items, None)
        if first is None:
            names = [*paths, *([f"`from_file` {options.from_file}"] if options.from_file else [])]
            hint = " (`include_all` takes in what is left out)" * bool(self.omitted.images or self.omitted.folders)
            raise ImageError(f"no images in {', '.join(names)}", f"{self.omitted}{hint}")
        self._items: Iterator[Item] = chain([first], items)
        self._db: sqlite3.Connection | None = None
        if key is not None or shard is not None or again:
            self._list(key, shard)

    @property
    def sound_tars(self) -> list[str]:
        """Tars that nothing is wrong with as a whole."""
        return [tar for tar in self._tars.paths if tar not in self._tars.faulty]

    def _list(self, key: Callable[[str], Key | None] | None, shard: Shard | None) -> None:
        """List all of them on disk, and keep those of a shard."""
        # A database without a name lies in a temporary file that goes when it is closed.
        self._db = sqlite3.connect("", isolation_level=None)
        rows = ((os.fsencode(str(item)), key and key_of(item, key), packed(item)) for item in self._items)
        with kept_somewhere():
            self._db.execute("CREATE TABLE list (place INTEGER PRIMARY KEY, image BLOB, key BLOB, member TEXT)")
            self._db.execute("BEGIN")
            count = self._db.executemany("INSERT INTO list (image, key, member) VALUES (?, ?, ?)", rows).rowcount
            if shard is not None:
                self.whole = {"pictures": count}  # as outputs have it that were begun before the noun was changed
                places = shard.of(count)
                self._db.execute("DELETE FROM list WHERE place <= ? OR place > ?", (places.start, places.stop))
            self._db.execute("COMMIT")

    def clash(self) -> tuple[str, str] | None:
        """Two images with one key, if there are any."""
        if self._db is None:
            return None
        places = "SELECT min(place), max(place) FROM list WHERE key IS NOT NULL GROUP BY key HAVING count(*) > 1"
        row = self._db.execute(f"{places} ORDER BY 1 LIMIT 1").fetchone()
        if row is None:
            return None
        (first,), (second,) = self._db.execute("SELECT image FROM list WHERE place IN (?, ?) ORDER BY place", row)
        return os.fsdecode(first), os.fsdecode(second)

    def __iter__(self) -> Iterator[Item]:
        if self._db is None:
            return self._items
        return (unpacked(*row) for row in self._db.execute("SELECT image, member FROM list ORDER BY place"))

    @property
    def digest(self) -> str:
        """What lists of the same names in the same order share."""
        digest = hashlib.blake2b(digest_size=8)
        for item in self:
            digest.update(os.fsencode(str(item)) + b"\0")
        return digest.hexdigest()

    def close(self) -> None:
        """Forget them."""
        if self._db is not None:
            self._db.close()


def key_of(item: Item, key: Callable[[str], Key | None]) -> Key | None:
    """An image's key; what is known to be none needs none."""
    return None if isinstance(item, Member) and item.error is not None else key(str(item))
