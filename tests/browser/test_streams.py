"""How the page asks for its answers, on which the server relies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.captioner import Captioner
from tests.browser.acting import choose, expect_caption

if TYPE_CHECKING:
    from playwright.sync_api import Page

Visit = Callable[..., "Page"]

# The end of each stream of events reaches the page late. `between` counts the replies to other requests that
# came while one was on its way.
_LATE = """
(() => {
    const ask = window.fetch, decoder = new TextDecoder(), late = 2000;
    window.ends = { said: 0, heard: 0, between: 0 };
    window.fetch = async (request, options) => {
        const reply = await ask(request, options);
        const url = request.url ?? String(request);
        if (url.includes('/queue/join') && window.ends.said > window.ends.heard) window.ends.between += 1;
        if (!url.includes('/queue/data')) return reply;
        const slow = new TransformStream({
            async transform(part, onward) {
                if (decoder.decode(part).includes('"close_stream"')) {
                    window.ends.said += 1;
                    await new Promise((goOn) => setTimeout(goOn, late));
                    window.ends.heard += 1;
                }
                onward.enqueue(part);
            },
        });
        return new Response(reply.body.pipeThrough(slow), reply);
    };
})();
"""


def test_what_is_asked_for_before_the_end_of_a_stream_is_heard_gets_its_answer(
    visit: Visit, address: str, captioner: Captioner, images: list[Path]
) -> None:
    page = visit(address, script=_LATE)
    page.wait_for_function("window.ends.said === 1", polling=10)  # of what a page asks for as it opens
    choose(page, images[0])
    expect_caption(page, captioner.caption([images[0]])[0][0].text)
    assert page.evaluate("window.ends.between") >= 1
