"""The list of pictures that a run is about, from whatever names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from captioner.batch.listing import list_pictures
from captioner.batch.options import FolderOptions, Shard
from captioner.batch.patterns import expand
from captioner.batch.samples import Tars
from captioner.batch.worklist import Key, WorkList
from captioner.errors import ImageError, OptionError


class Inputs:
    """Pictures to caption, taken down.

    Args:
        paths: files and folders.
        options: tars, lists, and which shard.
        key: see :class:`WorkList`.

    Attributes:
        work: the pictures of this shard.
        whole: how much all shards have to do; empty if there is but one part.

    Raises:
        OptionError: it cannot be read, or contradicts itself.
        ImageError: there is not one picture.
    """

    def __init__(
        self, paths: Sequence[str], options: FolderOptions, key: Callable[[str], Key | None]
    ) -> None:
        if options.input_tar and (paths or options.from_file is not None):
            raise OptionError("`input_tar` comes without other pictures", "give these a run of their own")
        self.whole: dict[str, int] = {}
        shard = None if options.shard is None else Shard.parse(options.shard)
        tars = expand(options.input_tar)
        if shard is not None and len(tars) >= shard.count:
            # Whole tars for each, so that nobody has to look into those of others.
            self.whole = {"tars": len(tars)}
            places, shard = shard.of(len(tars)), None
            tars = tars[places.start : places.stop]
        self._tars = Tars(tars)
        listed = self._tars if tars else list_pictures(paths, options.from_file, recursive=options.recursive)
        self.work = WorkList(listed, key)
        if not self.work.total:
            names = [*paths, *([f"`from_file` {options.from_file}"] if options.from_file else [])]
            raise ImageError(f"no pictures in {', '.join(names)}")
        if shard is not None:
            self.whole = {"pictures": self.work.total}
            self.work.keep(shard.of(self.work.total))

    @property
    def sound_tars(self) -> list[str]:
        """Tars that nothing is wrong with as a whole."""
        return [tar for tar in self._tars.paths if tar not in self._tars.faulty]

    def close(self) -> None:
        """Forget them."""
        self.work.close()
