"""``captioner caption`` from list to summary: what is due is captioned and written, the rest left alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.bulk.options import FolderOptions
from captioner.bulk.output import State, Target, file_or_terminal, output_settings
from captioner.bulk.sources import Inputs, key_of
from captioner.bulk.store import Seen, Store, kept_somewhere
from captioner.decoding.options import DecodingOptions
from captioner.errors import ImageError, OptionError
from captioner.images import Preprocessing, Preprocessings, display_name, reading, tars, watch
from captioner.interrupt import on_interrupt
from captioner.progress import Progress, Summary, Tally
from captioner.records import Captions, Record
from captioner.runtime.model import processors

if TYPE_CHECKING:
    from captioner.captioner import Captioner

SECONDS_TOGETHER = 0.5
"""What is captioned within this time is written together: each time costs a few waits for the disk."""
_MOST_WAITING = 4096  # records
_LISTED_TOGETHER = 512  # images
_SECONDS_LISTING = 0.05  # after each time that something is written
_NOTICE = b"\nfinishing the batch in hand; Ctrl-C again breaks off\n"


@dataclass(frozen=True)
class Model:
    """A model that is loaded only if there is something to caption.

    Attributes:
        settings: plain values that distinguish it from others, weights and decoding included.
        decoding: how it writes.
        load: loads it.
        preprocessing: says what it makes of images, without loading it onto its device.
        device: where it is to work, as it was named.
    """

    settings: Mapping[str, object]
    decoding: DecodingOptions
    load: Callable[[], Captioner]
    preprocessing: Callable[[], Preprocessing | Preprocessings] | None = None
    device: str = "auto"

    @classmethod
    def of(cls, captioner: Captioner) -> Model:
        """A captioner that is loaded already, with its own decoding options."""
        settings = model_settings(captioner.digest, captioner.options, captioner.precision)
        return cls(settings, captioner.options, lambda: captioner)


def model_settings(
    weights: str,
    decoding: DecodingOptions,
    precision: str,
    *,
    encoder: str | None = None,
    image_size: int | None = None,
    resize: str | None = None,
) -> dict[str, object]:
    """Name what captions depend on; the same from Python and the command line, so that each resumes the other's."""
    return {
        "weights": weights,
        "encoder": encoder,
        "image_size": image_size,
        "resize": resize,
        "precision": precision,
        "decoding": decoding.to_dict(),
    }


def caption_folder(
    paths: Sequence[str],
    options: FolderOptions,
    model: Model | Captioner,
    progress: Progress | None = None,
    target: Target | None = None,
    *,
    wanted: Callable[[Path], bool] = lambda path: True,
) -> Summary:
    """Caption into one file or the terminal, or into any other target; see ``captioner.caption_folder``.

    Args:
        paths: files and folders.
        options: what, where and how.
        model: a captioner; or how one is loaded.
        progress: shows failures and how far the run is.
        target: where captions go; None for the output of the options.
        wanted: whether a file is taken; those that are not are left for another run.

    Raises:
        CaptionerError: wrong use, nothing to caption, or an output that cannot be written.
    """
    model = model if isinstance(model, Model) else Model.of(model)
    progress = progress or Progress()
    if options.watch:
        once, kept = replace(options, watch=False), replace(model, load=cache(model.load))
        again = partial(caption_folder, target=target, wanted=watch.at_rest)
        return _keep_on(paths, options, partial(again, paths, once, kept, progress), progress)
    if target is None:
        if options.engine != "local":
            raise OptionError("`engine` ray is for caption_on_cluster")
        target = file_or_terminal(options, several=model.decoding.num_captions > 1)
    key = target.key if target.keyed else None
    with closing(target), closing(Inputs(paths, options, key, wanted)) as inputs:
        if clash := inputs.clash():
            first, second = map(display_name, clash)
            shared, advice = target.shared(clash[0])
            raise OptionError(f"{first} and {second} would both be {shared}", advice)
        settings = output_settings(model.settings, options, inputs.whole)
        run = _Run(options, model, progress, target, target.open(settings), inputs)
        return run.execute(_list_of(paths, options))


def _list_of(paths: Sequence[str], options: FolderOptions) -> dict[str, object]:
    """What a list of images depends on, beside what there is."""
    names = ("from_file", "recursive", "include_all", "shard")
    lists = {"paths": list(paths), "input_tar": list(options.input_tar), "exclude": list(options.exclude)}
    return {"folder": str(Path.cwd()), **lists, **{name: getattr(options, name) for name in names}}


def _keep_on(
    paths: Sequence[str], options: FolderOptions, caption: Callable[[], Summary], progress: Progress
) -> Summary:
    """Caption what is in folders, and what comes, until Ctrl-C; what all of it came to."""
    if not paths or not all(Path(path).is_dir() for path in paths):
        raise OptionError("`watch` takes folders", "name at least one, and nothing else")
    total = Summary(0, 0, 0)
    progress.say_once()  # each time, the images that have failed are tried again
    with suppress(KeyboardInterrupt):
        for _ in watch.arrivals(paths, options.omitted, recursive=options.recursive):
            try:
                summary = caption()
            except ImageError:  # there is none yet
                summary = Summary(0, 0, 0)
            if summary.captioned or summary.failed > total.failed:
                progress.summarise(summary)
            captioned, seconds = total.captioned + summary.captioned, total.seconds + summary.seconds
            skipped = max(0, summary.skipped - total.captioned)  # some of what was captioned may have gone
            total = replace(summary, captioned=captioned, skipped=skipped, seconds=seconds)
            if summary.interrupted or (summary.failed and options.fail_fast):
                break
            progress.summarise(f"waiting for new images in {', '.join(paths)}; Ctrl-C ends it")
    return total


def caption_file(path: str, options: FolderOptions, model: Model, progress: Progress) -> Summary:
    """Caption one image and print it, without a list on disk and without another process.

    Args:
        path: the image.
        options: a format that is printed line by line, and how.
        model: the model.
        progress: shows why, if it fails.

    Raises:
        CaptionerError: the model cannot be loaded.
    """
    from captioner.bulk.pipeline import caption_items

    captioner = model.load()
    progress.start(1)
    limit, workers = options.max_pixels, options.workers or 0
    with on_interrupt(lambda: None, notice=_NOTICE):
        records = caption_items(captioner, [Path(path)], model.decoding, max_pixels=limit, workers=workers)
        return print_results(records, options, progress, several=model.decoding.num_captions > 1)


def print_results(records: Iterable[Record], options: FolderOptions, progress: Progress, *, several: bool) -> Summary:
    """Print captions as they come.

    Args:
        records: what became of each image.
        options: the format, and what stands before and after captions.
        progress: shows failures.
        several: there may be several captions for each image.
    """
    target = file_or_terminal(options, several=several)
    tally = Tally(progress)
    target.begin()
    for record in records:
        target.write([replace(record, captions=tuple(map(options.dress, record.captions)))])
        errors = [] if record.error is None else [record.error]
        tally.due += 1
        tally.note(1 - len(errors), errors)
        if errors and options.fail_fast:
            break
    target.finish(listed=True, complete=True)
    return tally.summary()


class _Run:
    """One run: images are listed, and those that are due captioned meanwhile."""

    def __init__(
        self, options: FolderOptions, model: Model, progress: Progress, target: Target, store: Store, inputs: Inputs
    ) -> None:
        self._options, self._model, self._progress = options, model, progress
        self._target, self._store, self._inputs = target, store, inputs
        self._tally = Tally(progress, inputs.omitted)
        self._items = iter(inputs)
        self._is_listed = False  # as a whole
        self._changed: set[str] = set()  # of those that are being read and captioned

    def execute(self, listing: dict[str, object]) -> Summary:
        """Caption what is due, unless this is a dry run.

        Args:
            listing: what the list depends on; if that of an earlier run is the same, what it left comes first.
        """
        if self._options.dry_run:
            self._list(until=lambda: False)
            sys.stdout.flush()
            return self._tally.summary()
        if self._store.state.get("listing") == listing and not self._target.keyed:
            self._tally.due = self._store.queue_pending()
        # Where an image can be refused for what others are, all are looked at before anything is written.
        self._list(until=lambda: bool(self._tally.due) and not self._target.keyed)
        captioner = self._model.load() if self._tally.due else None
        self._store.begin()
        self._store.note(listing=listing)
        self._target.begin()
        self._progress.start(self._total, self._tally.skipped)
        if captioner is not None:
            with on_interrupt(self._tally.interrupt, notice=_NOTICE):
                self._caption(captioner)
        if self._is_listed:
            self._store.forget(self._inputs.sound_tars)
        elif not self._tally.remaining:
            self._tally.due += 1  # that there is more is known, but not how much
        self._tally.is_listed = self._is_listed
        self._target.finish(listed=self._is_listed, complete=not self._tally.remaining)
        return self._tally.summary()

    @property
    def _total(self) -> int | None:
        return self._tally.due if self._is_listed else None

    def _list(self, until: Callable[[], bool]) -> None:
        """List more images, and find out which of them are due."""
        while not (self._is_listed or until()):
            with kept_somewhere():  # by the lists of tars
                items = list(islice(self._items, _LISTED_TOGETHER))
            self._is_listed = len(items) < _LISTED_TOGETHER
            due: dict[bool, list[int]] = {False: [], True: []}
            for place, item, seen in self._store.enlist(items):
                state = self._state(item, seen)
                if state in (State.DUE, State.CHANGED):
                    due[state is State.CHANGED].append(place)
                else:
                    self._tally.skipped += 1
            for changed, places in due.items():
                self._store.queue(places, "changed" if changed else "")
                self._tally.due += len(places)

    def _list_further(self, *, for_more: bool = False) -> None:
        """List for a moment; or until more are due, however long it takes."""
        before, end = self._tally.due, time.monotonic() + _SECONDS_LISTING
        self._list(until=lambda: self._tally.due > before if for_more else time.monotonic() >= end)
        self._progress.expect(self._total, self._tally.skipped)

    def _state(self, item: tars.Item, seen: Seen | None) -> State:
        state = self._target.state(item, seen)
        if self._options.dry_run:
            print(f"{state.value}\t{display_name(str(item))}")
        elif state is State.LEFT:
            name = display_name(str(item))
            self._progress.say(f"{name}: has changed, but its caption was edited by hand and stays as it is")
        return state

    def _due(self) -> Iterator[tars.Item]:
        """The images that are due, in turn; the list grows meanwhile."""
        while True:
            page = self._store.due()
            for item, kind in page:
                is_there = kind != "early" or (isinstance(item, Path) and item.is_file() and self._inputs.wanted(item))
                if not is_there and self._store.put_off(str(item)):
                    self._tally.due -= 1
                    continue
                if kind == "changed":
                    self._changed.add(str(item))
                yield item
            if not page:
                if self._is_listed:
                    return
                self._list_further(for_more=True)

    def _caption(self, captioner: Captioner) -> None:
        # Only here: a run with nothing to do does not wait for what models need.
        from captioner.bulk.pipeline import READ_AHEAD, caption_loaded

        options, check = self._options, self._target.check
        reader = reading.ImageReader(captioner.preprocessing, options.pixel_limit, check, options.kind == "html")
        workers = options.workers
        if workers is None:  # reading takes a tenth of the time of encoding, and one image is not worth a process
            workers = max(1, min(8, processors() // 2)) if self._total != 1 else 0
        with reading.Readers(reader, workers) as readers:
            loaded = readers.read(self._due(), ahead=options.batch_size + READ_AHEAD)
            wanted = takewhile(lambda _: not self._tally.interrupted, loaded)
            decoding, size = self._model.decoding, options.batch_size
            batches = caption_loaded(captioner, decoding, wanted, size, dress=options.dress, known=self._known)
            with closing(batches):
                self._write_all(batches)

    def _write_all(self, batches: Iterable[list[Record]]) -> None:
        """Write batches as they come; those that come quickly together."""
        waiting: list[Record] = []
        written = time.monotonic()
        try:
            for batch in batches:
                waiting += batch
                failed = self._options.fail_fast and any(record.error is not None for record in batch)
                if failed or len(waiting) >= _MOST_WAITING or time.monotonic() - written >= SECONDS_TOGETHER:
                    records, waiting = waiting, []
                    if not self._write(records):
                        return
                    written = time.monotonic()
                    self._list_further()
        finally:
            if waiting:
                self._write(waiting)

    def _known(self, item: tars.Item, loaded: reading.Loaded) -> Captions | None:
        assert loaded.identity is not None
        if str(item) in self._changed:
            record = Record(item, identity=loaded.identity, thumbnail=loaded.thumbnail)
            if (captions := self._target.standing(record)) is not None:
                return captions
        return self._target.captions_of(loaded.identity.pixels)

    def _write(self, records: Sequence[Record]) -> bool:
        """Write a batch; whether to go on."""
        if self._options.fail_fast:
            failed = [record.error is not None for record in records]
            records = records[: failed.index(True) + 1] if any(failed) else records
        standing = self._look_again(records)
        written = self._target.write([self._numbered(record) for record in records])
        errors = [record.error for record in written if record.error is not None]
        unread = [Path(each.name).suffix[1:].upper() for each in written if "pip install" in (each.error or "")]
        self._inputs.omitted.others.update(unread)
        self._tally.due -= standing
        self._tally.skipped += standing
        self._tally.note(len(written) - len(errors) - standing, errors)
        return not (errors and self._options.fail_fast)

    def _look_again(self, records: Sequence[Record]) -> int:
        """Say which images have changed; how many of those whose files have changed look as before."""
        standing = 0
        for record in records:
            if record.name in self._changed:
                self._changed.remove(record.name)
                if self._target.standing(record) is not None:
                    standing += 1
                else:
                    self._progress.say(f"{display_name(record.name)}: has changed; it is captioned anew")
        return standing

    def _numbered(self, record: Record) -> Record:
        number = None if isinstance(record.image, str) else key_of(record.image, self._target.key)
        return replace(record, image_id=number) if isinstance(number, int) else record
