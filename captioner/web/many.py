"""The tab for many images: caption them in order while the visitor watches, edits, downloads and perhaps stops."""

import base64
import csv
import io
import json
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from captioner.errors import CaptionerError
from captioner.web import archive, gradio_fixes, render
from captioner.web.service import Service
from captioner.web.settings import Controls, Settings, read_choices

_AT_ONCE = 4  # images of one visitor that are under way together
_REPORT = 0.4  # seconds between two reports, and more the more there is to show
_REPORT_MORE = 0.004  # seconds an image
_THUMBNAIL = 240  # pixels
_LONGEST_CAPTION = 1000  # characters
_MOST_RUNS = 2  # albums that are captioned at once; single images go their own way
_COCO_NAME = re.compile(r"(?:COCO_\w+_)?0*(\d{1,12})")
_HINT = (
    '<p class="hint">Several images or a zip archive. They are captioned with the settings of the first '
    "tab. Captions can be edited before they are downloaded.</p>"
)


@dataclass
class Item:
    """An image and what became of it.

    Attributes:
        name: as the visitor knows it.
        caption: the sentence, perhaps edited; empty if the image failed.
        log_prob: natural logarithm of P(caption | image); None if it failed or was edited.
        thumbnail: a small JPEG as ``data:`` address.
        error: why it failed; None if it did not.
    """

    name: str
    caption: str = ""
    log_prob: float | None = None
    thumbnail: str = ""
    error: str | None = None


@dataclass
class Album:
    """A visitor's images, filled by :func:`caption_album` while other events read and edit it.

    Attributes:
        items: those that are done, in the order of the upload.
        total: how many there will be.
        seconds: how long it took so far.
        running: whether images are being captioned.
        stopping: set by the visitor, so that no further image is begun.
    """

    items: list[Item] = field(default_factory=list)
    total: int = 0
    seconds: float = 0.0
    running: bool = False
    stopping: bool = False

    @property
    def captioned(self) -> list[Item]:
        """The images that have a caption."""
        return [item for item in self.items if item.error is None]

    @property
    def broken(self) -> list[Item]:
        """The images that have none."""
        return [item for item in self.items if item.error is not None]

    @property
    def speed(self) -> float:
        """Images a second."""
        return len(self.items) / self.seconds if self.seconds > 0 else 0.0

    def edit(self, index: int, text: str) -> None:
        """Give an image another caption.

        Args:
            index: its place in ``items``; one that is not there is ignored.
            text: the caption; becomes one line.
        """
        if not 0 <= index < len(self.items) or self.items[index].error is not None:
            return
        line = " ".join(text[:_LONGEST_CAPTION].split())
        line = "".join(character for character in line if character.isprintable())
        item = self.items[index]
        if line != item.caption:
            item.caption, item.log_prob = line, None


def caption_album(
    service: Service, album: Album, uploads: Sequence[tuple[Path, str]], settings: Settings, weights: str | None = None
) -> Iterator[None]:
    """Caption uploaded files and the images in uploaded archives.

    An image that cannot be read becomes an item with an error, and the others go on.

    Args:
        service: the model.
        album: is emptied, then filled in the order of the upload.
        uploads: where each file lies, and its name.
        settings: the visitor's choices.
        weights: by name; the default ones if absent.

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
            encoded = service.encode(data, name=found.name, weights=weights, remember=False)
            best = service.caption(encoded, options)[0]
            return Item(found.name, best.text, best.log_prob, render.thumbnail(data, _THUMBNAIL))
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


class Download(NamedTuple):
    """A file to save; ``kind`` is its media type."""

    name: str
    kind: str
    data: bytes


def as_csv(items: Sequence[Item]) -> Download:
    """Write columns ``image`` and ``caption``, as ``captioner train`` reads them; leave broken images out."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("image", "caption"))
    writer.writerows((item.name, item.caption) for item in items if item.error is None)
    return Download("captions.csv", "text/csv", text.getvalue().encode())


def as_jsonl(items: Sequence[Item]) -> Download:
    """Write one record a line, as ``captioner caption --format jsonl`` does, errors included."""
    lines = ""
    for item in items:
        record: dict[str, object] = {"image": item.name, "error": item.error}
        if item.error is None:
            # After an edit the number would be that of another sentence.
            rest = {"edited": True} if item.log_prob is None else {"log_prob": item.log_prob}
            record = {"image": item.name, "caption": item.caption, **rest}
        lines += json.dumps(record, ensure_ascii=False) + "\n"
    return Download("captions.jsonl", "application/jsonl", lines.encode())


def as_coco(items: Sequence[Item]) -> Download:
    """Write COCO results. Ids are the numbers in the names if all names are COCO's, or else count from 1."""
    captioned = [item for item in items if item.error is None]
    matches = [_COCO_NAME.fullmatch(_stem(item.name).rpartition("/")[2]) for item in captioned]
    ids = [int(match[1]) for match in matches if match]
    if len(set(ids)) < len(captioned):
        ids = list(range(1, len(captioned) + 1))
    records = [
        {"image_id": image_id, "caption": item.caption, "file_name": item.name}
        for image_id, item in zip(ids, captioned, strict=True)
    ]
    text = json.dumps(records, ensure_ascii=False, indent=1) + "\n"
    return Download("captions.json", "application/json", text.encode())


def as_sidecars(items: Sequence[Item]) -> Download:
    """Write a zip with ``dog.txt`` for ``dog.jpg``; of two with the same name the second gets a number."""
    buffer = io.BytesIO()
    taken: set[str] = set()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in items:
            if item.error is not None:
                continue
            stem = _stem(item.name)
            name, number = f"{stem}.txt", 2
            while name in taken:
                name, number = f"{stem} ({number}).txt", number + 1
            taken.add(name)
            archive.writestr(name, item.caption + "\n")
    return Download("captions.zip", "application/zip", buffer.getvalue())


def _stem(name: str) -> str:
    """A name without its extension. Names of visitors may be anything, so :mod:`pathlib` would fail."""
    before, dot, _ = name.rpartition(".")
    return before if dot and not before.endswith("/") and before else name


FORMATS: dict[str, Callable[[Sequence[Item]], Download]] = {
    "CSV": as_csv,
    "JSON Lines": as_jsonl,
    "COCO JSON": as_coco,
    "Text files (zip)": as_sidecars,
}
"""Formats by the name that a visitor reads."""


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
    """Show the captioned images, each with its caption in a field.

    It only grows at its end, so that the browser, which compares old and new part by part, leaves alone what
    a visitor is editing.
    """
    figures = []
    for index, item in enumerate(album.items):
        name = escape(item.name)
        if item.error is None:
            figures.append(
                f'<figure class="shot"><img src="{item.thumbnail}" alt="{name}"><figcaption>'
                f'<span class="name">{name}</span><textarea rows="3" data-index="{index}" '
                f'aria-label="Caption of {name}">{escape(item.caption)}</textarea></figcaption></figure>'
            )
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
    text = f"Captioned {_counted(len(album.captioned))} {speed}."
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
        files = [(gradio_fixes.uploaded_file(file), render.shown_name(file.get("orig_name"))) for file in uploads or ()]
        for _ in caption_album(service, album, files, *read_choices(choices)):
            yield progress_card(album), gallery(album)
    except Exception as error:
        yield render.notice(render.for_visitor(error)), gallery(album)


def download(album: Album, name: str) -> dict[str, str]:
    """Write an album as a file for the browser to save."""
    file = FORMATS[name](album.items)
    data = base64.b64encode(file.data).decode("ascii")
    # The browser acts on a change, and the same file may be wanted twice.
    return {"name": file.name, "kind": file.kind, "data": data, "asked": str(time.time_ns())}


def many_tab(service: Service, controls: Controls) -> None:
    """Lay out the tab and say what happens in it."""
    album = gr.State(Album(), time_to_live=gradio_fixes.KEPT)
    with gr.Column(elem_id="many"):
        gr.HTML(_HINT, apply_default_css=False)
        files = gr.File(file_count="multiple", file_types=["image", ".zip"], label="Images or zip archives", height=170)
        gradio_fixes.no_addresses(files)
        with gr.Row(elem_id="run-buttons"):
            start = gr.Button("Caption them", variant="primary", elem_id="start")
            stop = gr.Button("Stop", interactive=False, elem_id="stop")
        progress = gr.HTML(elem_id="progress", apply_default_css=False)
        with gr.Row(visible=False, elem_id="downloads") as downloads:
            gr.HTML("<p>Download as</p>", apply_default_css=False)
            buttons = [gr.Button(name, size="sm") for name in FORMATS]
        shots = gr.HTML(js_on_load=render.static("editing.js"), elem_id="gallery", apply_default_css=False)
        saved = gr.HTML(html_template="", js_on_load=render.static("saving.js"), visible="hidden")

    def run(album: Album, files: list[dict[str, Any]] | None, *choices: Any) -> Iterator[tuple[Any, ...]]:
        for report, shown in run_album(service, album, files, choices):
            yield report, shown, gr.update(interactive=album.running), gr.update(visible=bool(album.captioned))

    def stop_album(album: Album) -> None:
        album.stopping = True

    def edit(album: Album, event: gr.EventData) -> None:
        album.edit(int(event.index), str(event.text))

    silent: dict[str, Any] = {"show_progress": "hidden", "preprocess": False, "api_visibility": "private"}
    # Edits and downloads go one by one, so that a download has the edit before it.
    in_turn = {**silent, "concurrency_limit": 1, "concurrency_id": "album"}
    start.click(
        run,
        [album, files, *controls.values],
        [progress, shots, stop, downloads],
        concurrency_limit=_MOST_RUNS,
        concurrency_id="album-run",
        **silent,
    )
    stop.click(stop_album, album, None, queue=False, **silent)
    shots.input(edit, album, None, trigger_mode="multiple", **in_turn)
    for button, name in zip(buttons, FORMATS, strict=True):
        button.click(lambda album, name=name: download(album, name), album, saved, **in_turn)
