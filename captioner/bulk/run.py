"""``captioner caption`` from list to summary: what is due is captioned and written, the rest left alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.bulk import reading, sidecars, sources
from captioner.bulk.options import FolderOptions
from captioner.bulk.output import State, Target, file_or_terminal, output_settings
from captioner.bulk.records import Item, Record
from captioner.decoding.options import DecodingOptions
from captioner.errors import ImageError, OptionError
from captioner.images import Preprocessing, Preprocessings, display_name, find, watch
from captioner.interrupt import on_interrupt
from captioner.progress import Progress
from captioner.runtime.model import processors

if TYPE_CHECKING:
    from captioner.captioner import Captioner

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
    *,
    target: Target | None = None,
    check: Callable[[bytes, str], None] | None = None,
    wanted: Callable[[Path], bool] | None = None,
) -> Summary:
    """Caption what paths name and what is not captioned yet; with ``watch`` until Ctrl-C.

    Args:
        paths: files and folders.
        options: what, where and how.
        model: a captioner, whose decoding options hold; or how one is loaded if there is something to caption.
        progress: shows failures and how far the run is; without it failures are shown only.
        target: where captions go, if not where the options say.
        check: see :class:`captioner.bulk.reading.ImageReader`.
        wanted: whether a file is taken; those that are not are left for another run.

    Raises:
        CaptionerError: wrong use, nothing to caption, or an output that cannot be written.
    """
    model = model if isinstance(model, Model) else Model.of(model)
    progress = progress or Progress()
    if options.watch:
        once, kept = replace(options, watch=False), replace(model, load=cache(model.load))
        again = partial(caption_folder, target=target, check=check, wanted=watch.at_rest)
        return _keep_on(paths, options, partial(again, paths, once, kept, progress), progress)
    if target is None:
        if options.kind in ("embed", "xmp") or options.engine != "local":
            raise OptionError("caption_inside embeds captions, and caption_on_cluster has a cluster write them")
        if options.kind == "sidecar":
            target = sidecars.Sidecars(options)
        else:
            target = file_or_terminal(options, several=model.decoding.num_captions > 1)
    with closing(target), closing(sources.Inputs(paths, options, target.key, wanted)) as inputs:
        if clash := inputs.clash():
            first, second = map(display_name, clash)
            key = target.key(clash[0])
            file = display_name(Path(os.fsdecode(key)).name) if isinstance(key, bytes) else None
            shared = f"image_id {key!r}" if file is None else f"captioned in {file}"
            advice = f"`sidecar_name` full takes {Path(first).name}{options.sidecar_ending} for the first"
            apart = options.kind == "sidecar" and options.sidecar_name != "full"
            raise OptionError(f"{first} and {second} would both be {shared}", advice if apart else "")
        settings = output_settings(model.settings, options, inputs.whole)
        target.open(settings, overwrite=options.existing == "overwrite")
        run = _Run(options, model, progress, Tally(progress, inputs.omitted), target, inputs, check)
        run.plan()
        return run.execute()


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
            total = replace(summary, captioned=captioned, skipped=summary.skipped - total.captioned, seconds=seconds)
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
    captioned = failed = 0
    target.begin()
    for record in records:
        target.write([replace(record, captions=tuple(map(options.dress, record.captions)))])
        if record.error is None:
            captioned += 1
        else:
            failed += 1
            progress.say(record.error)
            if options.fail_fast:
                break
    target.finish((), complete=True)
    return Summary(captioned, 0, failed, seconds=progress.seconds)


@dataclass
class _Run:
    """One run over a list of images."""

    _options: FolderOptions
    _model: Model
    _progress: Progress
    _tally: Tally
    _target: Target
    _inputs: sources.Inputs
    _check: Callable[[bytes, str], None] | None

    def plan(self) -> None:
        """Find out what is due."""
        self._tally.due = self._inputs.choose(self._is_due)
        self._tally.skipped = len(self._inputs) - self._tally.due

    def _is_due(self, item: Item) -> bool:
        state, name = self._target.state(item), display_name(str(item))
        if self._options.dry_run:
            print(f"{state.value}\t{name}")
        elif state is State.CHANGED:
            self._progress.say(f"{name}: has changed; it is captioned anew")
        elif state is State.LEFT:
            self._progress.say(f"{name}: has changed, but its caption was edited by hand and stays as it is")
        return state in (State.DUE, State.CHANGED)

    def execute(self) -> Summary:
        """Caption what is due, unless this is a dry run."""
        if self._options.dry_run:
            sys.stdout.flush()
            return self._tally.summary()
        captioner = self._model.load() if self._tally.due else None
        self._target.begin()
        self._target.forget(self._inputs.sound_tars)
        self._progress.start(self._tally.due, self._tally.skipped)
        if captioner is not None:
            with on_interrupt(self._tally.interrupt, notice=_NOTICE):
                self._caption(captioner)
        self._target.finish(self._inputs.names, complete=not self._tally.remaining)
        return self._tally.summary()

    def _caption(self, captioner: Captioner) -> None:
        # Only here: a run with nothing to do does not wait for what models need.
        from captioner.bulk.pipeline import Engine, caption_loaded, read_ahead

        options = self._options
        reader = reading.ImageReader(captioner.preprocessing, options.pixel_limit, self._check, options.kind == "html")
        workers = options.workers
        if workers is None:  # reading takes a tenth of the time of encoding, and one image is not worth a process
            workers = max(1, min(8, processors() // 2)) if len(self._inputs) > 1 else 0
        known = self._target.captions_of
        with reading.Readers(reader, workers) as readers, Engine(captioner, self._model.decoding) as engine:
            loaded = readers.read(self._inputs.due(), ahead=read_ahead(options.batch_size))
            wanted = takewhile(lambda _: not self._tally.interrupted, loaded)
            for batch in caption_loaded(engine, wanted, options.batch_size, dress=options.dress, known=known):
                if not self._write(batch):
                    return

    def _write(self, records: Sequence[Record]) -> bool:
        """Write a batch; whether to go on."""
        if self._options.fail_fast:
            failed = [record.error is not None for record in records]
            records = records[: failed.index(True) + 1] if any(failed) else records
        written = self._target.write([self._numbered(record) for record in records])
        errors = [record.error for record in written if record.error is not None]
        unread = [Path(each.name).suffix[1:].upper() for each in written if "pip install" in (each.error or "")]
        self._inputs.omitted.others.update(unread)
        self._tally.note(len(written) - len(errors), errors)
        return not (errors and self._options.fail_fast)

    def _numbered(self, record: Record) -> Record:
        number = None if isinstance(record.image, str) else sources.key_of(record.image, self._target.key)
        return replace(record, image_id=number) if isinstance(number, int) else record


@dataclass(frozen=True)
class Summary:
    """What became of the images of a run.

    Attributes:
        captioned: images that have got a caption.
        skipped: those that had one.
        failed: those that could not be captioned.
        remaining: those that are left.
        interrupted: whether Ctrl-C was pressed.
        seconds: from the first image on; without loading the model.
        omitted: what was left out of folders and tars, or cannot be read at all.
    """

    captioned: int
    skipped: int
    failed: int
    remaining: int = 0
    interrupted: bool = False
    seconds: float = 0.0
    omitted: find.Omitted | None = None

    def __str__(self) -> str:
        parts = [f"{self.captioned:,} captioned", f"{self.skipped:,} skipped", f"{self.failed:,} failed"]
        if self.remaining:
            parts.append(f"{self.remaining:,} remaining")
        done = self.captioned + self.failed
        if done and self.seconds > 0:
            parts.append(f"{done / self.seconds:.1f} images/s")
        return ", ".join([*parts, *self.left_out])

    @property
    def left_out(self) -> list[str]:
        """What was left out, in words; at most one part of a sentence."""
        return list(filter(None, [str(self.omitted or "")]))


class Tally:
    """Counts what becomes of the images of a run, and has it shown.

    Attributes:
        due: images that are to be captioned.
        skipped: images that have their captions already.
        interrupted: whether Ctrl-C was pressed.
    """

    def __init__(self, progress: Progress, omitted: find.Omitted) -> None:
        self._progress, self._omitted = progress, omitted
        self.due = self.skipped = 0
        self.interrupted = False
        self._captioned = self._failed = 0

    def interrupt(self) -> None:
        """Note that Ctrl-C was pressed."""
        self.interrupted = True

    def note(self, captioned: int, errors: Sequence[str]) -> None:
        """Some more are done: those that have got a caption, and what went wrong with the others."""
        for error in errors:
            self._progress.say(error)
        self._captioned += captioned
        self._failed += len(errors)
        self._progress.advance(captioned + len(errors), len(errors))

    @property
    def remaining(self) -> int:
        """Images that are due and are left."""
        return self.due - self._captioned - self._failed

    def summary(self) -> Summary:
        """What has become of them so far."""
        return Summary(
            self._captioned,
            self.skipped,
            self._failed,
            self.remaining,
            interrupted=self.interrupted,
            seconds=self._progress.seconds,
            omitted=self._omitted,
        )
