"""An album as HTML: its progress, its broken pictures, and a gallery whose captions can be edited."""

from __future__ import annotations

from html import escape

from captioner.web.many import Album, Item


def progress_card(album: Album) -> str:
    """How far the work is, or how it ended, and the pictures that could not be read."""
    if album.running:
        text = _running(album)
        bar = (
            f'<progress max="{album.total}" value="{len(album.items)}" aria-label="Pictures done"></progress>'
        )
        return f'<div class="progress">{bar}<p>{escape(text)}</p>{_broken(album)}</div>'
    text = _ended(album)
    return (
        f'<div class="progress" data-announce="{escape(text)}"><p class="verdict">{escape(text)}</p>'
        f"{_broken(album)}</div>"
    )


def gallery(album: Album) -> str:
    """The captioned pictures, each with its caption in a field. Only ever grows at its end.

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
    done = f"{len(album.items)} of {_pictures(album.total)}"
    if not album.speed:
        return done
    left = (album.total - len(album.items)) / album.speed
    return f"{done}, {album.speed:.1f} pictures/s, about {left:.0f} s left"


def _ended(album: Album) -> str:
    speed = f"in {album.seconds:.1f} s, {album.speed:.1f} pictures/s"
    if len(album.items) < album.total:
        return f"Stopped after {len(album.items)} of {_pictures(album.total)} {speed}."
    text = f"Captioned {_pictures(len(album.captioned))} {speed}."
    return f"{text} {len(album.broken)} could not be read." if album.broken else text


def _broken(album: Album) -> str:
    if not album.broken:
        return ""
    items = "".join(f"<li>{escape(item.error or '')}</li>" for item in album.broken)
    return f'<h2>Could not be read</h2><ul class="broken">{items}</ul>'


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"
