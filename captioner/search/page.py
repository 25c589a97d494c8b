"""The pictures that a search found as one HTML page: no script, no outside request, pictures embedded."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from captioner.errors import ImageError
from captioner.files import write_atomically
from captioner.images.thumbnails import thumbnail_uri
from captioner.search.query import Answer, Match

_THUMBNAIL = 320  # pixels of the long side

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --quiet: #767676; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; overflow-wrap: anywhere; }}
ol {{ list-style: none; padding: 0; display: grid; gap: 1.5rem;
 grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }}
img, .absent {{ width: 100%; height: 13rem; object-fit: contain; background: #8882; }}
.absent {{ display: grid; place-items: center; }}
.score {{ font-weight: 600; font-variant-numeric: tabular-nums; }}
.name {{ display: block; font-size: .9rem; overflow-wrap: anywhere; }}
.quiet {{ color: var(--quiet); }}
@media (prefers-color-scheme: dark) {{ :root {{ --quiet: #a0a0a0; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>The {shown:,} best of {searched:,} pictures. The score says by how many nats the text is more probable for
a picture than it is on average ({mean:.2f}).</p>
<ol>
{cards}
</ol>
</body>
</html>
"""


def write_page(path: str | Path, text: str, answer: Answer, top: int) -> None:
    """Write the best pictures of a search as a page.

    Args:
        path: the HTML file.
        text: what was searched for.
        answer: what was found.
        top: how many pictures to show. One that is no longer there leaves a grey box.

    Raises:
        CaptionerError: the file cannot be written.
    """
    best = answer.matches[:top]
    page = _PAGE.format(
        title=escape(text),
        shown=len(best),
        searched=len(answer.matches),
        mean=answer.mean_log_prob,
        cards="\n".join(_cards(best)),
    )
    # half a character, which file names may hold and UTF-8 may not, becomes a question mark
    write_atomically(path, page.encode("utf-8", "replace"))


def _cards(matches: Sequence[Match]) -> list[str]:
    return [
        f'<li>{_picture(match.path)}<span class="score">{match.score:+.2f}</span> '
        f'<span class="quiet">log P {match.log_prob:.2f}</span>'
        f'<a class="name" href="{escape(match.path.absolute().as_uri())}">{escape(str(match.path))}</a></li>'
        for match in matches
    ]


def _picture(path: Path) -> str:
    try:
        return f'<img alt="{escape(path.name)}" src="{thumbnail_uri(path, _THUMBNAIL)}">'
    except ImageError:
        return '<div class="absent">picture not at hand</div>'
