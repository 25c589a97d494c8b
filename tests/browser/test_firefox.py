"""The page in Firefox, driven by its own WebDriver BiDi: Playwright drives builds of its own only."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from captioner.captioner import Captioner

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

_QUIET = {"toolkit.telemetry.enabled": False, "app.update.enabled": False}
_UNTIL = """
new Promise((done, fail) => {
    const end = Date.now() + 120000;
    const look = () => {
        const found = (%s);
        if (found) done(JSON.stringify(found));
        else if (Date.now() > end) fail(document.body.innerText);
        else setTimeout(look, 50);
    };
    look();
})
"""
# Top and bottom of the map, and top of the last word, which was chosen and is at the lower end of the window.
_MAP = """
((map, word) => {
    word.scrollIntoView({ block: 'end' });
    const { top, bottom } = map.getBoundingClientRect();
    return scrollY && map.querySelector('.shade').src === word.dataset.shade
        && [top, bottom, word.getBoundingClientRect().top];
})(document.querySelector('.look .frame'), document.querySelector('.look-at[aria-pressed=true]'))
"""


class Firefox:
    """One page of a running Firefox."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count()
        self.send("session.new", capabilities={})
        (tree,) = self.send("browsingContext.getTree")["contexts"]
        self._page = {"context": tree["context"]}

    def send(self, method: str, **parameters: Any) -> Any:
        """Send a command; its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv())).get("id") != number:
            pass
        return answer["result"]

    def open(self, address: str) -> None:
        self.send("browsingContext.navigate", url=address, wait="complete", **self._page)

    def until(self, expression: str) -> Any:
        """Wait until a JavaScript expression is true, at most two minutes; its value."""
        found = self._run(_UNTIL % expression)
        assert "value" in found, f"never true: {expression}; the page shows: {found}"
        return json.loads(found["value"])

    def click(self, selector: str) -> None:
        """Click an element, as soon as there is one."""
        self.until(f"(found => found && (found.click(), true))(document.querySelector({json.dumps(selector)}))")

    def choose(self, selector: str, path: Path) -> None:
        """Choose a file."""
        element = self._run(f"document.querySelector({json.dumps(selector)})")
        self.send("input.setFiles", element={"sharedId": element["sharedId"]}, files=[str(path)], **self._page)

    def _run(self, expression: str) -> Any:
        answer = self.send("script.evaluate", expression=expression, target=self._page, awaitPromise=True)
        return answer.get("result") or answer["exceptionDetails"]


@pytest.fixture
def firefox(tmp_path: Path) -> Iterator[Firefox]:
    """Debian's Firefox, or another one."""
    client = pytest.importorskip("websockets.sync.client", reason="needs websockets: pip install 'captioner[dev]'")
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("needs Firefox: apt-get install firefox-esr")
    profile = tmp_path / "profile"
    profile.mkdir()
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in _QUIET.items()]
    (profile / "user.js").write_text("".join(lines))
    command = [program, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"]
    log = tmp_path / "log"
    with log.open("wb") as file, subprocess.Popen(command, stderr=file) as process:
        try:
            while not (found := re.search(r"BiDi listening on (ws://\S+)", log.read_text())):
                assert process.poll() is None, "Firefox ended"
                time.sleep(0.1)
            with client.connect(f"{found[1]}/session", max_size=None) as socket:
                yield Firefox(socket)
        finally:
            process.kill()


def test_the_page_in_firefox(
    firefox: Firefox, attentive_address: str, attentive_file: Path, images: list[Path]
) -> None:
    dogs = next(image for image in images if image.stem == "dogs")
    ((best, *_),) = Captioner.load(attentive_file, device="cpu").caption([dogs])
    firefox.open(attentive_address)
    firefox.until("document.querySelector('.status.ready')?.innerText")
    firefox.click('[data-sample="dogs"]')
    assert firefox.until("document.querySelector('.answer .caption')?.innerText") == best.text

    firefox.click("#decided .label-wrap")
    firefox.until("document.querySelectorAll('.look-at').length")
    firefox.click(".decisions tr:nth-last-child(2) .look-at")
    top, bottom, word = firefox.until(_MAP)
    assert 0 <= top < bottom <= word

    firefox.click("[role=tab][data-tab-id=many]")
    firefox.until("location.hash === '#many' && document.title === 'Many images - captioner'")
    firefox.until("(history.back(), true)")
    firefox.until("!location.hash && document.title === 'captioner'")
    firefox.until("(history.forward(), true)")
    firefox.until("document.querySelector('[role=tab][data-tab-id=many]').ariaSelected === 'true'")

    firefox.until("document.querySelector('#many input[type=file]') !== null")
    firefox.choose("#many input[type=file]", dogs)
    firefox.until("document.querySelector('#many .file-preview') !== null")
    firefox.click("#start")
    firefox.until("document.querySelector('.progress .verdict')?.innerText")
    firefox.until("(document.querySelector('#gallery textarea').value = 'Two dogs.')")
    firefox.open(f"{attentive_address}docs")
    assert firefox.until("document.querySelectorAll('h2').length === 3 && document.querySelector('code').innerText")
    firefox.open(f"{attentive_address}#many")
    assert firefox.until("document.querySelector('#gallery textarea')?.value") == "Two dogs."
