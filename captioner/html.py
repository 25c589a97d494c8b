"""What HTML pages share: that of one file, without script and outside request; names and numbers as they show them."""

from html import escape

_LONGEST_NAME = 60

_OPENING = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8886; --quiet: #6e6e6e; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; overflow-wrap: anywhere; }}
.gallery {{ list-style: none; padding: 0; display: grid; gap: 1.5rem;
 grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); }}
.gallery img, .absent {{ width: 100%; height: 13rem; object-fit: contain; background: #8882; }}
.absent {{ display: grid; place-items: center; color: var(--quiet); }}
@media (prefers-color-scheme: dark) {{ :root {{ --quiet: #a0a0a0; }} }}
{style}</style>
</head>
<body>
"""
CLOSING = "</body>\n</html>\n"


def opening(title: str, style: str) -> str:
    """Make the beginning of a page, up to the first element of its body.

    Args:
        title: of the page, not yet escaped.
        style: rules beyond the common ones: a ``.gallery`` of images, ``.absent`` ones among them.
    """
    return _OPENING.format(title=escape(title), style=style)


def shown_name(name: object) -> str:
    """Give a visitor's file name as one printable line of reasonable length, without folders."""
    text = str(name or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    if len(text) > _LONGEST_NAME:
        text = f"{text[: _LONGEST_NAME - 12]}\N{HORIZONTAL ELLIPSIS}{text[-11:]}"
    return text or "the image"


def percent(probability: float) -> str:
    """Write a probability as a percentage with two significant digits.

    >>> percent(0.634), percent(0.0423), percent(0.0002)
    ('63 %', '4.2 %', '< 0.1 %')
    """
    value = 100 * probability
    if value < 0.1:
        return "< 0.1 %"
    if value < 9.95:
        return f"{value:.1f} %"
    return f"{min(value, 99 if probability < 1 else 100):.0f} %"
