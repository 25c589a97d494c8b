"""``captioner caption`` from list to summary: what is due is captioned and written, the rest left alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.bulk.options import FolderOptions
from captioner.bulk.output import OutputFile, StandardOutput, State, Target, output_settings
from captioner.bulk.progress import Progress, Summary, Tally
from captioner.bulk.records import Entry
from captioner.bulk.sidecars import Sidecars
from captioner.bulk.sources import Inputs
from captioner.bulk.store import key_of
from captioner.bulk.tars import Item
from captioner.bulk.writers import CocoNumbers, build_writer
from captioner.errors import OptionError
from captioner.images import display_name
from captioner.interrupt import on_interrupt

if TYPE_CHECKING:
    from captioner.bulk.pipeline import Result
    from captioner.captioner import Captioner
    from captioner.decoding.options import DecodingOptions
    from captioner.images import Preprocessing, Preprocessings

_NOTICE = b"\nfinishing the batch in hand; Ctrl-C again breaks off\n"


@dataclass(frozen=True)
class Model:
    """A model that is loaded only if there is something to caption.

    Attributes:
        settings: plain values that tell it from others, weights and decoding included.
        decoding: how it writes.
        load: loads it.
        preprocessing: tells what it makes of images, without loading it onto its device.
        device: where it is to work, as it was named.
    """

    settings: Mapping[str, object]
    decoding: DecodingOptions
    load: Callable[[], Captioner]
    preprocessing: Callable[[], Preprocessing | Preprocessings] | None = None
    device: str = "auto"


def caption_folder(
    paths: Sequence[str],
    options: FolderOptions,
    model: Model,
    progress: Progress,
    *,
    target: Target | None = None,
    check: Callable[[bytes, str], None] | None = None,
) -> Summary:
    """Caption what paths name and what is not captioned yet.

    Args:
        paths: files and folders.
        options: what, where and how.
        model: the model.
        progress: is told of failures and of the state of things.
        target: where captions go, if not where the options say.
        check: see :class:`captioner.bulk.reading.PictureReader`.

    Raises:
        CaptionerError: wrong use, nothing to caption, or an output that cannot be written.
    """
    if target is None:
        target = build_target(options, several=model.decoding.num_captions > 1)
    with closing(target), closing(Inputs(paths, options, target.key)) as inputs:
        if clash := inputs.work.clash():
            first, second = map(display_name, clash)
            raise OptionError(f"{first} and {second} would both be {_shared(target, clash[0])}")
        settings = output_settings(model.settings, options, inputs.whole)
        target.open(settings, overwrite=options.overwrite)
        run = _Run(options, model, progress, target, inputs, check)
        run.plan()
        return run.list_plan() if options.dry_run else run.execute()


def caption_file(path: str, options: FolderOptions, model: Model, progress: Progress) -> Summary:
    """Caption one image and print it, without a list on disk and without another process.

    Args:
        path: the image.
        options: a format that is printed line by line, and how.
        model: the model.
        progress: is told if it fails.

    Raises:
        CaptionerError: the model cannot be loaded.
    """
    captioner = model.load()

    from captioner.bulk.pipeline import caption_paths

    progress.start(1)
    limit, workers = options.max_pixels, options.workers or 0
    with on_interrupt(lambda: None, notice=_NOTICE):
        results = caption_paths(captioner, [path], model.decoding, max_pixels=limit, workers=workers)
        return print_results(results, options, progress, several=model.decoding.num_captions > 1)


def print_results(results: Iterable[Result], options: FolderOptions, progress: Progress, *, several: bool) -> Summary:
    """Print captions as they come.

    Args:
        results: what became of each image.
        options: the format, and what stands before and after captions.
        progress: is told of failures.
        several: there may be several captions for each image.
    """
    target = build_target(options, several=several)
    captioned = failed = 0
    target.begin()
    for result in results:
        target.write([Entry(str(result.image), options.lines(result.captions), result.error)])
        if result.error is None:
            captioned += 1
        else:
            failed += 1
            progress.say(result.error)
            if options.fail_fast:
                break
    target.finish((), complete=True)
    return Summary(captioned, 0, failed, seconds=progress.seconds)


def build_target(options: FolderOptions, *, several: bool) -> Target:
    """Where captions go.

    Args:
        options: which format, and where.
        several: there may be several captions for each image.

    Raises:
        OptionError: captions go into the images, or are written by a cluster.
    """
    if options.embed or options.engine != "local":
        raise OptionError("caption_inside embeds captions, and caption_on_cluster has a cluster write them")
    if options.kind == "sidecar":
        return Sidecars(options.sidecar_ending, max_pixels=options.pixel_limit)
    folder = options.link_folder
    writer = build_writer(options.kind, several=several, log_prob=options.log_prob, folder=folder)
    number = CocoNumbers(options.annotations) if writer.names_by_number else _no_number
    if options.output is None:
        return StandardOutput(writer, number)
    return OutputFile(Path(options.output), writer, number, max_pixels=options.pixel_limit)


def _no_number(image: str) -> None:
    """The number of an image, for formats that name images by their paths."""


def _shared(target: Target, image: str) -> str:
    key = target.key(image)
    if isinstance(key, bytes):
        return f"captioned in {display_name(Path(os.fsdecode(key)).name)}"
    return f"image_id {key}"


class _Run:
    """One run over a list of images."""

    def __init__(
        self,
        options: FolderOptions,
        model: Model,
        progress: Progress,
        target: Target,
        inputs: Inputs,
        check: Callable[[bytes, str], None] | None,
    ) -> None:
        self._options, self._model, self._progress = options, model, progress
        self._target, self._inputs, self._work, self._check = target, inputs, inputs.work, check
        self._tally = Tally(progress)

    def plan(self) -> None:
        """Find out what is due."""
        self._tally.due = self._work.choose(self._is_due)
        self._tally.skipped = len(self._work) - self._tally.due

    def _is_due(self, item: Item) -> bool:
        state, image = self._target.state(item), str(item)
        if self._options.dry_run:
            print(f"{state.value}\t{display_name(image)}")
        elif state is State.CHANGED:
            self._progress.say(f"{display_name(image)}: has changed; it is captioned anew")
        elif state is State.LEFT:
            self._progress.say(
                f"{display_name(image)}: has changed, but its caption was edited by hand and stays as it is"
            )
        return state in (State.DUE, State.CHANGED)

    def list_plan(self) -> Summary:
        """What would be done; it has been printed."""
        sys.stdout.flush()
        return self._tally.summary()

    def execute(self) -> Summary:
        """Caption what is due."""
        captioner = self._model.load() if self._tally.due else None
        self._target.begin()
        self._target.forget(self._inputs.sound_tars)
        self._progress.start(self._tally.due)
        if captioner is not None:
            with on_interrupt(self._tally.interrupt, notice=_NOTICE):
                self._caption(captioner)
        self._target.finish(self._work, complete=not self._tally.remaining)
        return self._tally.summary()

    def _caption(self, captioner: Captioner) -> None:
        # Imported here, where torch has been imported: a run with nothing to do takes no seconds for that.
        from captioner.bulk.pipeline import Engine, caption_loaded, read_ahead
        from captioner.bulk.reading import ImageReader, Readers, default_workers

        options = self._options
        thumbnails = options.kind == "html"
        reader = ImageReader(captioner.preprocessing, options.pixel_limit, self._check, thumbnails)
        workers = options.workers
        if workers is None:
            workers = default_workers() if len(self._work) > 1 else 0  # one image is not worth a process
        with Readers(reader, workers) as readers, Engine(captioner, self._model.decoding) as engine:
            loaded = readers.read(self._work.due(), ahead=read_ahead(options.batch_size))
            wanted = takewhile(lambda _: not self._tally.interrupted, loaded)
            for batch in caption_loaded(engine, wanted, options.batch_size, self._is_known):
                if not self._write(batch):
                    return

    def _is_known(self, digest: bytes) -> bool:
        return self._target.captions_of(digest) is not None

    def _write(self, results: Sequence[Result]) -> bool:
        """Write a batch; whether to go on."""
        entries = list(self._up_to_failure(map(self._entry, results)))
        written = self._target.write(entries)
        errors = [entry.error for entry in written if entry.error is not None]
        self._tally.note(len(written) - len(errors), errors)
        return not (errors and self._options.fail_fast)

    def _up_to_failure(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        for entry in entries:
            yield entry
            if entry.error is not None and self._options.fail_fast:
                return

    def _entry(self, result: Result) -> Entry:
        image, seen = str(result.image), result.identity
        number = key_of(result.image, self._target.key)
        if result.known and seen is not None:
            captions = self._target.captions_of(seen.digest) or ()
        else:
            captions = self._options.lines(result.captions)
        image_id = number if isinstance(number, int) else None
        return Entry(image, captions, result.error, image_id, seen, result.thumbnail)
