"""``captioner caption --engine ray``: the same run over the machines of a cluster.

Images are captioned in parts, some hundred consecutive ones, each of which ends up in one file. What the cluster
does with a part is in :mod:`captioner.cluster.steps`.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count, islice
from pathlib import Path

from captioner.bulk import output, run, sources
from captioner.bulk.options import FolderOptions
from captioner.errors import OutputError
from captioner.images import display_name, tars
from captioner.interrupt import on_interrupt
from captioner.progress import Progress, Summary, Tally
from captioner.records import Record

_BATCHES = 16  # of a part
_NOTICE = b"\nstopping when the next part is written; Ctrl-C again breaks off\n"


def caption_on_cluster(paths: Sequence[str], options: FolderOptions, model: run.Model, progress: Progress) -> Summary:
    """Caption what paths name and is not captioned yet; see :func:`captioner.bulk.run.caption_folder`.

    Raises:
        CaptionerError: wrong use, nothing to caption, no cluster, or an output that cannot be written.
    """
    with closing(sources.Inputs(paths, options, again=True)) as inputs:
        return _Run(options, model, progress, inputs).execute()


class _Run:
    """One run over a list of images."""

    def __init__(self, options: FolderOptions, model: run.Model, progress: Progress, inputs: sources.Inputs) -> None:
        # Imported here: it needs pyarrow, which comes with Ray alone.
        from captioner.cluster.steps import PartFiles

        self._options, self._model, self._progress, self._inputs = options, model, progress, inputs
        self._rows = _BATCHES * options.batch_size
        self._settings = {
            **output.output_settings(model.settings, options, inputs.whole),
            "pictures a file": self._rows,
            "list of pictures": inputs.digest,
        }
        self._files = PartFiles(
            Path(options.output or "").absolute(), options.kind, several=model.decoding.num_captions > 1
        )
        self._files.open(self._settings, overwrite=options.overwrite)
        self._waiting: set[int] = set()
        self._tally = Tally(progress, inputs.omitted)

    def _plan(self) -> None:
        """Find out what is due: parts that are not there, and in those that are, what has failed."""
        for number, items in self._parts():
            for item, record in zip(items, self._known(number, items), strict=True):
                state = output.State.DUE if record is None else output.State.DONE
                if self._options.dry_run:
                    print(f"{state.value}\t{display_name(str(item))}")
                if record is None:
                    self._tally.due += 1
                    self._waiting.add(number)
                else:
                    self._tally.skipped += 1

    def _parts(self) -> Iterator[tuple[int, list[tars.Item]]]:
        items = iter(self._inputs)
        for number in count():
            part = list(islice(items, self._rows))
            if not part:
                return
            yield number, part

    def _known(self, number: int, items: Sequence[tars.Item]) -> list[Record | None]:
        """What earlier runs have captioned of a part."""
        written = None if self._options.overwrite else self._files.read(number, list(map(str, items)))
        if written is None:
            return [None] * len(items)
        return [record if record.error is None else None for record in written]

    def execute(self) -> Summary:
        """Caption what is due, unless this is a dry run."""
        self._plan()
        if self._tally.due and not self._options.dry_run:
            with on_interrupt(self._tally.interrupt, notice=_NOTICE):
                self._caption()
        return self._tally.summary()

    def _caption(self) -> None:
        from captioner.cluster.steps import captioned, cluster

        with cluster(self._options.ray_address):
            self._files.begin(self._settings, overwrite=self._options.overwrite)
            self._progress.start(self._tally.due, self._tally.skipped)
            due = ((n, items, self._known(n, items)) for n, items in self._parts() if n in self._waiting)
            with closing(captioned(due, self._options, self._model, self._files)) as parts:
                for part in parts:
                    if part.stopped is not None:
                        raise OutputError(part.stopped)
                    self._tally.note(part.captioned, part.errors)
                    if self._tally.interrupted or (part.errors and self._options.fail_fast):
                        return
