"""The tab for many images: how it is laid out, and what happens on which event."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from captioner.web import render
from captioner.web.gradio_fixes import KEPT, no_addresses, uploaded_file
from captioner.web.many import FORMATS, Album, Item, caption_album
from captioner.web.messages import for_visitor, shown_name
from captioner.web.one_tab import read_choices

if TYPE_CHECKING:
    from captioner.web.one_tab import Controls
    from captioner.web.service import Service


def progress_card(album: Album) -> str:
    """How far the work is, or how it ended, and the images that could not be read."""
    if album.running:
        text = _running(album)
        bar = f'<progress max="{album.total}" value="{len(album.items)}" aria-label="Images done"></progress>'
        return f'<div class="progress">{bar}<p>{escape(text)}</p>{_broken(album)}</div>'
    text = _ended(album)
    return (
        f'<div class="progress" data-announce="{escape(text)}"><p class="verdict">{escape(text)}</p>'
        f"{_broken(album)}</div>"
    )


def gallery(album: Album) -> str:
    """The captioned images, each with its caption in a field. Only ever grows at its end.

    So the browser, which compares old and new part by part, leaves alone what a visitor is editing.
    """
    return "".join(_figure(index, item) for index, item in enumerate(album.items) if item.error is None)


def _figure(index: int, item: Item) -> str:
    name = escape(item.name)
    return (
        f'<figure class="shot"><img src="{item.thumbnail}" alt="{name}"><figcaption>'
        f'<span class="name">{name}</span>'
        f'<textarea rows="3" data-index="{index}" aria-label="Caption of {name}">{escape(item.caption)}'
        "</textarea></figcaption></figure>"
    )


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


def _broken(album: Album) -> str:
    if not album.broken:
        return ""
    items = "".join(f"<li>{escape(item.error or '')}</li>" for item in album.broken)
    return f'<h2>Could not be read</h2><ul class="broken">{items}</ul>'


def _counted(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


_MOST_RUNS = 2  # albums that are captioned at once; single images go their own way
_HINT = (
    '<p class="hint">Several images or a zip archive. They are captioned with the settings of the first '
    "tab. Captions can be edited before they are downloaded.</p>"
)
# An image's caption is sent when typing pauses, and at the latest when the field is left.
_EDITING = """
const waiting = new Map();
function send(field) {
    clearTimeout(waiting.get(field));
    waiting.delete(field);
    trigger('input', { index: Number(field.dataset.index), text: field.value });
}
element.addEventListener('input', (event) => {
    clearTimeout(waiting.get(event.target));
    waiting.set(event.target, setTimeout(send, 400, event.target));
});
element.addEventListener('focusout', (event) => {
    if (waiting.has(event.target)) send(event.target);
});
"""
_SAVING = """
watch('value', () => {
    const file = props.value;
    if (!file) return;
    const bytes = Uint8Array.from(atob(file.data), (character) => character.charCodeAt(0));
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([bytes], { type: file.kind }));
    link.download = file.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});
"""


def run_album(
    service: Service, album: Album, uploads: Sequence[Mapping[str, Any]] | None, choices: Sequence[Any]
) -> Iterator[tuple[str, str]]:
    """Caption uploads into an album; yields its progress and its gallery again and again.

    Args:
        service: the model.
        album: the visitor's.
        uploads: Gradio's records of the files; None if there are none.
        choices: values of :attr:`captioner.web.one_tab.Controls.values`.
    """
    # Empty once, so that the browser keeps no field of the images before.
    yield render.notice("Opening the images\N{HORIZONTAL ELLIPSIS}", kind="busy"), ""
    try:
        files = [(uploaded_file(file), shown_name(file.get("orig_name"))) for file in uploads or ()]
        for _ in caption_album(service, album, files, *read_choices(choices)):
            yield progress_card(album), gallery(album)
    except Exception as error:
        yield render.notice(for_visitor(error)), gallery(album)


def download(album: Album, name: str) -> dict[str, str]:
    """An album as a file, as the browser saves it."""
    file = FORMATS[name](album.items)
    data = base64.b64encode(file.data).decode("ascii")
    # The browser acts on a change, and the same file may be wanted twice.
    return {"name": file.name, "kind": file.kind, "data": data, "asked": str(time.time_ns())}


def many_tab(service: Service, controls: Controls) -> None:
    """Lay out the tab and say what happens in it."""
    album = gr.State(Album(), time_to_live=KEPT)
    with gr.Column(elem_id="many"):
        gr.HTML(_HINT, apply_default_css=False)
        files = gr.File(file_count="multiple", file_types=["image", ".zip"], label="Images or zip archives", height=170)
        no_addresses(files)
        with gr.Row(elem_id="run-buttons"):
            start = gr.Button("Caption them", variant="primary", elem_id="start")
            stop = gr.Button("Stop", interactive=False, elem_id="stop")
        progress = gr.HTML(elem_id="progress", apply_default_css=False)
        with gr.Row(visible=False, elem_id="downloads") as downloads:
            gr.HTML("<p>Download as</p>", apply_default_css=False)
            buttons = [gr.Button(name, size="sm") for name in FORMATS]
        shots = gr.HTML(js_on_load=_EDITING, elem_id="gallery", apply_default_css=False)
        saved = gr.HTML(html_template="", js_on_load=_SAVING, visible="hidden")

    def run(album: Album, files: list[dict[str, Any]] | None, *choices: Any) -> Iterator[tuple[Any, ...]]:
        for told, shown in run_album(service, album, files, choices):
            yield told, shown, gr.update(interactive=album.running), gr.update(visible=bool(album.captioned))

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
