"""``captioner caption --engine ray``: the same run over the machines of a cluster.

Images are captioned in parts, some hundred consecutive ones, each of which ends up in one file (see
:mod:`captioner.cluster.parts`). What the cluster does with a part is in :mod:`captioner.cluster.dataset`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.bulk.options import FolderOptions
from captioner.bulk.output import State, output_settings
from captioner.bulk.progress import Progress, Summary, Tally
from captioner.bulk.records import Entry
from captioner.bulk.sources import Inputs
from captioner.bulk.tars import Item
from captioner.cluster.parts import PartFiles
from captioner.errors import OutputError
from captioner.images import display_name
from captioner.interrupt import on_interrupt

if TYPE_CHECKING:
    from captioner.bulk.run import Model
    from captioner.cluster.steps import Done

_BATCHES = 16  # of a part
_NOTICE = b"\nstopping when the next part is written; Ctrl-C again breaks off\n"


def caption_on_cluster(paths: Sequence[str], options: FolderOptions, model: Model, progress: Progress) -> Summary:
    """Caption what paths name and is not captioned yet; see :func:`captioner.bulk.run.caption_folder`.

    Raises:
        CaptionerError: wrong use, nothing to caption, no cluster, or an output that cannot be written.
    """
    with closing(Inputs(paths, options, lambda image: None)) as inputs:
        run = _Run(options, model, progress, inputs)
        run.plan()
        return run.list_plan() if options.dry_run else run.execute()


class _Run:
    """One run over a list of images."""

    def __init__(self, options: FolderOptions, model: Model, progress: Progress, inputs: Inputs) -> None:
        self._options, self._model, self._progress, self._work = options, model, progress, inputs.work
        self._rows = _BATCHES * options.batch_size
        self._settings = {
            **output_settings(model.settings, options, inputs.whole),
            "images a file": self._rows,
            "list of images": _digest(inputs.work),
        }
        self._files = PartFiles(
            Path(options.output or "").absolute(), options.kind, several=model.decoding.num_captions > 1
        )
        self._files.open(self._settings, overwrite=options.overwrite)
        self._waiting: set[int] = set()
        self._tally = Tally(progress)

    def plan(self) -> None:
        """Find out what is due: parts that are not there, and in those that are, what has failed."""
        for number, items in self._parts():
            for item, entry in zip(items, self._known(number, items), strict=True):
                state = State.DUE if entry is None else State.DONE
                if self._options.dry_run:
                    print(f"{state.value}\t{display_name(str(item))}")
                if entry is None:
                    self._tally.due += 1
                    self._waiting.add(number)
                else:
                    self._tally.skipped += 1

    def _parts(self) -> Iterator[tuple[int, list[Item]]]:
        items = self._work.items()
        for number in count():
            part = list(islice(items, self._rows))
            if not part:
                return
            yield number, part

    def _known(self, number: int, items: Sequence[Item]) -> list[Entry | None]:
        """What earlier runs have captioned of a part."""
        written = None if self._options.overwrite else self._files.read(number, list(map(str, items)))
        if written is None:
            return [None] * len(items)
        return [entry if entry.error is None else None for entry in written]

    def list_plan(self) -> Summary:
        """What would be done; it has been printed."""
        return self._tally.summary()

    def execute(self) -> Summary:
        """Caption what is due."""
        if self._tally.due:
            with on_interrupt(self._tally.interrupt, notice=_NOTICE):
                self._caption()
        return self._tally.summary()

    def _caption(self) -> None:
        # Imported here: a run with nothing to do takes no seconds for Ray and torch.
        from captioner.cluster.dataset import captioned, cluster

        with cluster(self._options.ray_address):
            self._files.begin(self._settings, overwrite=self._options.overwrite)
            self._progress.start(self._tally.due)
            due = ((n, items, self._known(n, items)) for n, items in self._parts() if n in self._waiting)
            with closing(captioned(due, self._options, self._model, self._files)) as parts:
                for part in parts:
                    if not self._note(part):
                        return

    def _note(self, part: Done) -> bool:
        """Take down what became of a part; whether to go on."""
        if part.stopped is not None:
            raise OutputError(part.stopped)
        self._tally.note(part.captioned, part.errors)
        return not self._tally.interrupted and not (part.errors and self._options.fail_fast)


def _digest(images: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for image in images:
        digest.update(os.fsencode(image) + b"\0")
    return digest.hexdigest()
