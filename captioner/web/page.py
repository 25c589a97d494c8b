"""The page that captions an uploaded picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from captioner.captioner import Captioner
from captioner.errors import CaptionerError

_MOST_BEAMS = 10
_HOUR = 3600  # seconds; uploads older than this are removed
_CONCURRENCY = "model"  # all events that use the model share one queue


def caption_upload(captioner: Captioner, upload: dict[str, Any] | None, beam_size: float) -> tuple[str, str]:
    """Caption an uploaded file.

    Args:
        captioner: the model.
        upload: Gradio's record of the file, with its ``path``; None if there is none.
        beam_size: captions kept in parallel.

    Returns:
        The caption, and a line on how probable the model finds it.

    Raises:
        gradio.Error: no picture, or one that cannot be read; the message is for the visitor.
    """
    if not upload or not upload.get("path"):
        raise gr.Error("Choose a picture first.", duration=None, print_exception=False)
    options = replace(captioner.options, beam_size=int(beam_size))
    path = Path(upload["path"])
    try:
        ((best, *_),) = captioner.caption([path], options)
    except CaptionerError as error:
        # The visitor knows the picture by the name it had on their machine, and the server's path is not
        # their business.
        message = str(error).replace(str(path), str(upload.get("orig_name") or "the picture"))
        raise gr.Error(message, duration=None, print_exception=False) from error
    return best.text, f"log P(caption | picture) = {best.log_prob:.2f}"


def build_page(captioner: Captioner) -> gr.Blocks:
    """The page, ready to be launched."""
    page: gr.Blocks
    with gr.Blocks(title="captioner", analytics_enabled=False, delete_cache=(_HOUR, _HOUR)) as page:
        gr.Markdown("# captioner\nUpload a photograph and read what the model sees in it.")
        with gr.Row():
            picture = gr.Image(type="filepath", label="Picture", sources=["upload", "clipboard", "webcam"])
            with gr.Column():
                caption = gr.Textbox(label="Caption", lines=2, buttons=["copy"], interactive=False)
                likelihood = gr.Markdown()
                beam_size = gr.Slider(
                    1,
                    _MOST_BEAMS,
                    value=captioner.options.beam_size,
                    step=1,
                    label="Beam size",
                    info="Captions that the search keeps in parallel; 1 takes the best word each time.",
                )

        def respond(upload: dict[str, Any] | None, beams: float) -> tuple[str, str]:
            return caption_upload(captioner, upload, beams)

        # The file is taken as it was uploaded (preprocess=False): our own reader knows orientation,
        # colour modes and limits, and says in words what is wrong with a broken file.
        for happening, endpoint in ((picture.input, "caption"), (beam_size.release, None)):
            happening(
                respond,
                [picture, beam_size],
                [caption, likelihood],
                preprocess=False,
                api_name=endpoint,
                api_visibility="public" if endpoint else "private",
                concurrency_limit=1,
                concurrency_id=_CONCURRENCY,
            )
    return page
