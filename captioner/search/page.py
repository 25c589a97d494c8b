"""The images that a search found as one HTML page: no script, no outside request, images embedded."""

from html import escape
from pathlib import Path

from captioner.files import write_atomically
from captioner.html import CLOSING, opening
from captioner.images.draw import thumbnail_html
from captioner.search.search import Answer

_STYLE = """\
.score { font-weight: 600; font-variant-numeric: tabular-nums; }
.name { display: block; font-size: .9rem; overflow-wrap: anywhere; }
.quiet { color: var(--quiet); }
"""
_BODY = """\
<h1>{title}</h1>
<p>The {shown:,} best of {searched:,} images. The score says by how many nats the text is more probable for
an image than it is on average ({mean:.2f}).</p>
<ol class="gallery">
{cards}
</ol>
"""


def write_page(path: str | Path, text: str, answer: Answer, top: int) -> None:
    """Write the best images of a search as a page.

    Args:
        path: the HTML file.
        text: what was searched for.
        answer: what was found.
        top: how many images to show. One that is no longer there leaves a grey box.

    Raises:
        CaptionerError: the file cannot be written.
    """
    best = answer.matches[:top]
    cards = [
        f'<li>{thumbnail_html(match.path, match.path.name)}<span class="score">{match.score:+.2f}</span> '
        f'<span class="quiet">log P {match.log_prob:.2f}</span>'
        f'<a class="name" href="{escape(match.path.absolute().as_uri())}">{escape(str(match.path))}</a></li>'
        for match in best
    ]
    body = _BODY.format(
        title=escape(text),
        shown=len(best),
        searched=len(answer.matches),
        mean=answer.mean_log_prob,
        cards="\n".join(cards),
    )
    page = opening(text, _STYLE) + body + CLOSING
    # half a character, which file names may hold and UTF-8 may not, becomes a question mark
    write_atomically(path, page.encode("utf-8", "replace"))
