"""Web pages with alt texts, in a real browser: what it shows is the same, and the images have names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

import pytest

from captioner.embed.pages import TO_WRITE, insert_alts, read_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TEXT = 'A "dog" & a man\'s <hat>'
BODY = """<base href="b/"><title><img src=a.jpg></title><body class=ü>
<p><img src="ü.jpg"><IMG SRC='../b/%C3%BC.jpg'><img/src=\xfc.jpg /><image src=&uuml;.jpg>
<table><img src=ü.jpg><tr><td><img src=ü.jpg></table><textarea><img src=ü.jpg></textarea>
<noscript><img src=ü.jpg></noscript><select><option><img src=ü.jpg></select><svg><image href=ü.jpg /></svg>
<picture><source srcset=none.webp media=print><img src=ü.jpg></picture><img srcset="ü.jpg 2x">
<!-- <img src=ü.jpg> --><script>"<img src=ü.jpg>"</script><template><img src=ü.jpg></template>
<img src=ü.jpg alt="Max"><img src=ü.jpg alt><img src=gone.jpg><b><i><img src=ü.jpg></b></i></body></html><img src=ü.jpg>
"""
XHTML = '<?xml version="1.0" encoding="{}"?><html xmlns="http://www.w3.org/1999/xhtml"><head><script src="x.js"/>'
READ = """() => {
    const images = [...document.querySelectorAll('img')];
    const seen = images.map(each => [each.src, each.naturalWidth, each.getAttribute('alt')]);
    images.forEach(each => each.removeAttribute('alt'));
    return [seen, document.documentElement.outerHTML];
}"""


@pytest.mark.parametrize(
    ("name", "encoding"), [("p.html", "utf-8"), ("p.html", "windows-1252"), ("p.html", "utf-16"), ("p.xhtml", "utf-8")]
)
def test_a_browser_sees_the_same_page_with_names(
    name: str, encoding: str, browser: Browser, images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    shutil.copy(images[0], tmp_path / "b" / "ü.jpg")
    text = f'<!doctype html>\r\n<meta charset="{encoding}">{BODY}'
    if name.endswith("xhtml"):
        body = '<base href="b/"/></head>\r\n<body>&#160;<img src="ü.jpg"/><img src="ü.jpg" alt=""/></body></html>'
        text = XHTML.format(encoding) + body
    data, path = text.encode(encoding), tmp_path / name
    path.write_bytes(data)
    found = read_page(path, tmp_path).images
    page = browser.new_page()
    page.goto(path.as_uri())
    before, tree = page.evaluate(READ)
    path.write_bytes(insert_alts(data, path, {each.place: TEXT for each in found if each.state == TO_WRITE}))
    page.goto(path.as_uri())
    after, same = page.evaluate(READ)
    page.close()
    assert same.replace(f" alt={quoteattr(TEXT)}", "") == tree  # one is left in <noscript>, which is text here
    assert [(source, width) for source, width, _ in after] == [(source, width) for source, width, _ in before]
    expected = [TEXT if alt is None and width else alt for _, width, alt in before]
    assert [alt for _, _, alt in after] == expected
    assert expected.count(TEXT) >= (1 if name.endswith("xhtml") else 10)
