"""The tab for many images: caption them in order while the visitor watches, edits, downloads and perhaps stops."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from captioner.errors import CaptionerError
from captioner.images import archive
from captioner.images.draw import data_uri, make_thumbnail
from captioner.web import gradio_fixes, render, uploads
from captioner.web.service import Service
from captioner.web.settings import SILENT, Controls, Settings, read_choices

_AT_ONCE = 4  # images of one visitor that are under way together
_REPORT = 0.4  # seconds between two reports, and more the more there is to show
_REPORT_MORE = 0.004  # seconds an image
_THUMBNAIL = 240  # pixels
_MOST_RUNS = 2  # albums that are captioned at once; single images go their own way
_FORMATS = ("CSV", "JSON Lines", "COCO JSON", "Text files (zip)")  # as downloads.js knows them
_KEPT = "() => JSON.parse(sessionStorage.getItem('album')) ?? ['', '']"
_HINT = (
    '<p class="hint">Several images or a zip archive. They are captioned with the settings of the first '
    "tab. Captions can be edited before they are downloaded.</p>"
)


@dataclass
class Item:
    """An image and what became of it: a caption, or an error."""

    name: str
    caption: str = ""
    log_prob: float | None = None
    thumbnail: str = ""
    error: str | None = None


@dataclass
class Album:
    """A visitor's images in the order of the upload, filled by :func:`caption_album` until it is to stop."""

    items: list[Item] = field(default_factory=list)
    total: int = 0
    seconds: float = 0.0
    running: bool = False
    stopping: bool = False

    @property
    def broken(self) -> list[Item]:
        """The images that have none."""
        return [item for item in self.items if item.error is not None]

    @property
    def speed(self) -> float:
        """Images a second."""
        return len(self.items) / self.seconds if self.seconds > 0 else 0.0


def caption_album(
    service: Service, album: Album, uploads: Sequence[tuple[Path, str]], settings: Settings, weights: str | None = None
) -> Iterator[None]:
    """Caption uploaded files, each with its name, and the images in uploaded archives; the album is emptied first.

    An image that cannot be read becomes an item with an error, and the others go on.

    Yields:
        Now and then, so that the visitor can see the progress; the last time when all is done.

    Raises:
        CaptionerError: there is nothing to caption, too much of it, or the model cannot be loaded.
    """
    album.items, album.total, album.seconds = [], 0, 0.0
    if not uploads:
        raise CaptionerError("choose some images or a zip archive first")
    waiting = list(archive.find_uploads(uploads))
    options = settings.options(service.options(weights))

    def caption(found: archive.Found) -> Item:
        try:
            data = found.read()
            image = service.prepare(data, name=found.name, weights=weights, remember=False)
            best = service.caption(image, options)[0]
            return Item(found.name, best.text, best.log_prob, data_uri(make_thumbnail(data, _THUMBNAIL)))
        except Exception as error:
            return Item(found.name, error=render.for_visitor(error))

    album.total, album.running, album.stopping = len(waiting), True, False
    start = reported = time.monotonic()
    under_way: list[Future[Item]] = []
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while under_way or (waiting and not album.stopping):
                while waiting and len(under_way) < _AT_ONCE and not album.stopping:
                    under_way.append(pool.submit(caption, waiting.pop(0)))
                album.items.append(under_way.pop(0).result())
                album.seconds = time.monotonic() - start
                if time.monotonic() - reported >= _REPORT + _REPORT_MORE * len(album.items):
                    reported = time.monotonic()
                    yield
    finally:
        album.running = False
    yield


def progress_card(album: Album) -> str:
    """Show how far the work is, or how it ended, and the images that could not be read."""
    broken = "".join(f"<li>{escape(item.error or '')}</li>" for item in album.broken)
    if broken:
        broken = f'<h2>Could not be read</h2><ul class="broken">{broken}</ul>'
    if album.running:
        bar = f'<progress max="{album.total}" value="{len(album.items)}" aria-label="Images done"></progress>'
        return f'<div class="progress">{bar}<p>{_running(album)}</p>{broken}</div>'
    text = _ended(album)
    return f'<div class="progress" data-announce="{text}"><p class="verdict">{text}</p>{broken}</div>'


def gallery(album: Album) -> str:
    """Show the captioned images, each with its caption in a field; ``downloads.js`` reads them, and what failed.

    It only grows at its end, so that the browser, which compares old and new part by part, leaves alone what
    a visitor is editing.
    """
    figures = []
    for item in album.items:
        name = escape(item.name)
        if item.error is None:
            figures.append(
                f'<figure class="shot" data-image="{name}" data-log-prob="{item.log_prob}">'
                f'<img src="{item.thumbnail}" alt="{name}"><figcaption><span class="name">{name}</span>'
                f'<textarea rows="3" aria-label="Caption of {name}">{escape(item.caption)}</textarea>'
                "</figcaption></figure>"
            )
        else:
            figures.append(f'<p hidden data-image="{name}" data-error="{escape(item.error)}"></p>')
    return "".join(figures)


def _running(album: Album) -> str:
    done = f"{len(album.items)} of {_counted(album.total)}"
    if not album.speed:
        return done
    left = (album.total - len(album.items)) / album.speed
    return f"{done}, {album.speed:.1f} images/s, about {left:.0f} s left"


def _ended(album: Album) -> str:
    speed = f"in {album.seconds:.1f} s, {album.speed:.1f} images/s"
    if len(album.items) < album.total:
        return f"Stopped after {len(album.items)} of {_counted(album.total)} {speed}."
    text = f"Captioned {_counted(len(album.items) - len(album.broken))} {speed}."
    return f"{text} {len(album.broken)} could not be read." if album.broken else text


def _counted(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def run_album(
    service: Service, album: Album, uploads: Sequence[Mapping[str, Any]] | None, choices: Sequence[Any]
) -> Iterator[tuple[str, str]]:
    """Caption uploads (Gradio's records) into an album, and yield its progress and its gallery again and again."""
    # Empty once, so that the browser keeps no field of the images before.
    yield render.notice("Opening the images\N{HORIZONTAL ELLIPSIS}", kind="busy"), ""
    try:
        files = [(gradio_fixes.uploaded_file(file), gradio_fixes.uploaded_name(file)) for file in uploads or ()]
        for _ in caption_album(service, album, files, *read_choices(choices)):
            yield progress_card(album), gallery(album)
    except Exception as error:
        yield render.notice(render.for_visitor(error)), gallery(album)


def many_tab(service: Service, controls: Controls) -> None:
    """Lay out the tab and say what happens in it."""
    album = gr.State(Album(), time_to_live=uploads.KEPT)
    with gr.Column(elem_id="many"):
        gr.HTML(_HINT, apply_default_css=False)
        files = gr.File(file_count="multiple", file_types=["image", ".zip"], label="Images or zip archives", height=170)
        with gr.Row(elem_id="run-buttons"):
            start = gr.Button("Caption them", variant="primary", elem_id="start")
            stop = gr.Button("Stop", interactive=False, elem_id="stop")
        progress = gr.HTML(elem_id="progress", apply_default_css=False)
        with gr.Row(elem_id="downloads"):  # shown by the style sheet while there are captions
            gr.HTML("<p>Download as</p>", apply_default_css=False)
            for name in _FORMATS:
                gr.Button(name, size="sm")
        shots = gr.HTML(elem_id="gallery", apply_default_css=False)

    def run(album: Album, files: list[dict[str, Any]] | None, *choices: Any) -> Iterator[tuple[Any, ...]]:
        for report, shown in run_album(service, album, files, choices):
            yield report, shown, gr.update(interactive=album.running)

    silent = SILENT | {"preprocess": False}
    start.click(
        run,
        [album, files, *controls.values],
        [progress, shots, stop],
        concurrency_limit=_MOST_RUNS,
        concurrency_id="album-run",
        **silent,
    )
    stop.click(lambda album: setattr(album, "stopping", True), album, None, **silent)
    # What downloads.js kept when the page was left.
    gr.on(None, None, None, [progress, shots], js=_KEPT, **silent)
