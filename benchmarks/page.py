"""How fast is the page's server, and does it keep its memory? The tables of docs/page.md.

    python benchmarks/page.py IMAGES [--weights FILE] [--requests 1000] [--clients 1 8 32] [--old COMMIT] [--large]

Starts ``captioner serve``, lets 1, 8 and 32 clients send different images to ``/api/caption``, and captions the
same images as a folder before and after each of these, so that the shares hold also where the machine's speed
changes. With ``--old``, as many clients then ask an earlier build, which took three requests for a caption. With
``--large``, 16 clients send images of 100 megapixels at once, in several formats. Prints Markdown tables, failed
requests, and the server's memory: at first, at its peak, at the end and a minute later.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from builds import OLD, REPOSITORY, Build, Server, both_builds, running_server
from PIL import Image

from captioner.images.find import find_images

BUILD = Build("this", REPOSITORY)
LARGE = {"JPEG": {"quality": 60}, "progressive JPEG": {"quality": 60, "progressive": True}, "PNG": {}, "WebP": {}}
LARGE_CLIENTS, SIDE = 16, 10_000
FORM = b'--end\r\ncontent-disposition: form-data; name="image"; filename="%s"\r\n\r\n%s\r\n--end--\r\n'
Ask = Callable[[str, bytes], None]


class Client(threading.local):
    """What one client sends and gets; it shares the processors with the server, so it is as light as can be."""

    def __init__(self, server: Server) -> None:
        self._http = HTTPConnection(server.address.removeprefix("http://"), timeout=120)

    def __call__(self, name: str, data: bytes) -> None:
        """Ask for one caption."""
        headers = {"content-type": "multipart/form-data; boundary=end"}
        try:
            self._http.request("POST", "/api/caption", FORM % (name.encode(), data), headers)
            with self._http.getresponse() as answer:
                assert json.load(answer).get("caption"), answer.status
        except BaseException:
            self._http.close()  # the next request opens it again
            raise


class OldClient(threading.local):
    """As :class:`Client`, of a build whose programs went through Gradio's queue."""

    def __init__(self, server: Server) -> None:
        self._http = httpx.Client(base_url=server.address, timeout=120)

    def __call__(self, name: str, data: bytes) -> None:
        """Ask for one caption."""
        http = self._http
        upload = http.post("/gradio_api/upload", files={"files": (name, data)}).raise_for_status()
        image = {"path": upload.json()[0], "meta": {"_type": "gradio.FileData"}}
        event = http.post("/gradio_api/call/v2/caption", json={"image": image}).raise_for_status()
        answer = http.get(f"/gradio_api/call/caption/{event.json()['event_id']}")
        assert "event: complete" in answer.text, answer.text


def caption(ask: Ask, path: Path, number: int) -> float | None:
    """Seconds of one request; None if it failed.

    A few bytes behind the image make it another one, which the server has not seen before.
    """
    start = time.perf_counter()
    try:
        ask(path.name, path.read_bytes() + number.to_bytes(8, "big"))
    except (OSError, HTTPException, httpx.HTTPError, ValueError, KeyError, AssertionError) as error:
        print(f"failed: {error!r}", file=sys.stderr)
        return None
    return time.perf_counter() - start


def load(
    server: Server, images: list[Path], requests: int, clients: int, kind: Callable[[Server], Ask] = Client
) -> tuple[list[float], int, float]:
    """Latencies of the requests that succeeded, how many failed, and the seconds of all together."""
    ask = kind(server)
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        chosen = islice(cycle(images), requests)
        numbers = range(clients * 1_000_000, clients * 1_000_000 + requests)
        found = list(pool.map(lambda path, number: caption(ask, path, number), chosen, numbers))
    latencies = [seconds for seconds in found if seconds is not None]
    return latencies, len(found) - len(latencies), time.perf_counter() - start


def folder_speed(images: list[Path], weights: list[str]) -> float:
    """Images/s of ``captioner caption``, without loading: of many images less the time for one."""
    seconds = []
    for chosen in (images[:1], images[:1], images):  # the first one is to read the program from the disk
        with TemporaryDirectory() as folder:
            for number, path in enumerate(chosen):
                (Path(folder) / f"{number}{path.suffix}").symlink_to(path.resolve())
            start = time.perf_counter()
            BUILD.run("caption", folder, *weights, "--format", "jsonl", "--quiet")
            seconds.append(time.perf_counter() - start)
    return (len(images) - 1) / max(seconds[2] - seconds[1], 1e-9)


def old_speed(old: str, images: list[Path], requests: int, clients: int) -> float:
    """Captions/s of an earlier build with its own weights."""
    with both_builds(old) as (build, _), running_server(build) as server:
        load(server, images, 8, 1, OldClient)
        latencies, _, seconds = load(server, images, requests, clients, OldClient)
        return len(latencies) / seconds


@contextmanager
def watched(server: Server) -> Iterator[list[float]]:
    """The most memory that the server takes meanwhile, in MB, as the last of a list."""
    peak, done = [server.megabytes()], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            peak[0] = max(peak[0], server.megabytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def large_images(server: Server) -> None:
    """Send images of 100 megapixels, 16 at once, and print how the server takes them."""
    print(
        f"\n| {LARGE_CLIENTS} images of {SIDE} x {SIDE} pixels at once | answered | refused | peak |\n|---|---|---|---|"
    )
    ramp = Image.linear_gradient("L").resize((SIDE, SIDE))
    image = Image.merge("RGB", (ramp, ramp.rotate(90), ramp))
    for kind, options in LARGE.items():
        data = io.BytesIO()
        image.save(data, kind.split()[-1].upper(), **options)

        def send(number: int, data: bytes = data.getvalue()) -> int:
            files = {"image": ("large", data + bytes([number]))}
            return httpx.post(f"{server.address}/api/caption", files=files, timeout=600).status_code

        with watched(server) as peak, ThreadPoolExecutor(LARGE_CLIENTS) as pool:
            statuses = list(pool.map(send, range(LARGE_CLIENTS)))
        print(f"| {kind} | {statuses.count(200)} | {statuses.count(400)} | {peak[-1]:.0f} MB |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder")
    parser.add_argument("--weights", help="checkpoint (default: the shipped one)")
    parser.add_argument("--requests", type=int, default=1000, help="for each number of clients")
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--old", nargs="?", const=OLD, help=f"commit or folder of an earlier build (default: {OLD})")
    parser.add_argument("--large", action="store_true", help="also send images of 100 megapixels")
    args = parser.parse_args()
    weights = ["--weights", str(Path(args.weights).resolve())] if args.weights else []
    images = list(islice(find_images([args.images]), args.requests))
    if len(images) < 2:
        parser.error(f"{args.images} needs at least two images")
    speeds, rows, failures = [folder_speed(images, weights)], [], 0
    with running_server(BUILD, *weights) as server:
        load(server, images, 8, 1)  # to warm up
        memory = [server.megabytes()]
        with watched(server) as peak:
            for clients in args.clients:
                latencies, failed, seconds = load(server, images, args.requests, clients)
                failures += failed
                speeds.append(folder_speed(images, weights))
                rows.append((clients, len(latencies) / seconds, statistics.mean(speeds[-2:]), sorted(latencies)))
        if args.large:
            large_images(server)
        memory += [peak[-1], server.megabytes()]
        time.sleep(60)
        memory.append(server.megabytes())
    print("\n| clients | captions/s | the folder's | share | median | 99th percentile |\n|---|---|---|---|---|---|")
    for clients, rate, speed, latencies in rows:
        if not latencies:
            print(f"| {clients} | 0 | {speed:.1f} | 0% | | |")
            continue
        middle, high = statistics.median(latencies), latencies[int(0.99 * (len(latencies) - 1))]
        print(f"| {clients} | {rate:.1f} | {speed:.1f} | {rate / speed:.0%} | {middle:.2f} s | {high:.2f} s |")
    print(f"\n{args.requests} requests a row, {failures} failed.")
    if args.old and rows:
        earlier = old_speed(args.old, images, args.requests, rows[-1][0])
        print(
            f"{args.old} with {rows[-1][0]} clients: {earlier:.1f} captions/s; now {rows[-1][1] / earlier:.1f} times."
        )
    texts = ", ".join(f"{value:.0f}" for value in memory)
    print(f"Memory, MB, at first, at the peak of these requests, at the end and a minute later: {texts}.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
