"""How fast is the page's server, and does it keep its memory? The table of docs/page.md.

    python benchmarks/page.py IMAGES [--weights FILE] [--requests 1000] [--clients 1 8 32]

Starts ``captioner serve``, lets 1, 8 and 32 clients send different images to ``/api/caption``, and captions the
same images as a folder in the same run, before and after, so that the ratio holds also on a busy machine. Prints a
Markdown table, failed requests, and the server's memory before and after all requests, and a minute later.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from builds import REPOSITORY, Build, Server, running_server

from captioner.images.find import find_images

BUILD = Build("this", REPOSITORY)


def caption(http: httpx.Client, path: Path, number: int) -> float | None:
    """Seconds of one request; None if it failed.

    A few bytes behind the image make it another one, which the server has not seen before.
    """
    start = time.perf_counter()
    try:
        data = path.read_bytes() + number.to_bytes(8, "big")
        answer = http.post("/api/caption", files={"image": (path.name, data)}).raise_for_status()
        assert answer.json()["caption"]
    except (httpx.HTTPError, ValueError, KeyError, AssertionError) as error:
        print(f"failed: {error!r}", file=sys.stderr)
        return None
    return time.perf_counter() - start


def load(server: Server, images: list[Path], requests: int, clients: int) -> tuple[list[float], int, float]:
    """Latencies of the requests that succeeded, how many failed, and the seconds of all together."""
    # The server closes connections that are idle for five seconds; these are given up earlier.
    limits = httpx.Limits(max_connections=clients, keepalive_expiry=2)
    with httpx.Client(base_url=server.address, timeout=120, limits=limits) as http:
        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            chosen = islice(cycle(images), requests)
            numbers = range(clients * 1_000_000, clients * 1_000_000 + requests)
            found = list(pool.map(lambda path, number: caption(http, path, number), chosen, numbers))
    latencies = [seconds for seconds in found if seconds is not None]
    return latencies, len(found) - len(latencies), time.perf_counter() - start


def folder_speed(images: list[Path], weights: list[str]) -> float:
    """Images/s of ``captioner caption``, without loading: of many images less the time for one."""
    seconds = []
    for chosen in (images[:1], images):
        with TemporaryDirectory() as folder:
            for number, path in enumerate(chosen):
                (Path(folder) / f"{number}{path.suffix}").symlink_to(path.resolve())
            start = time.perf_counter()
            BUILD.run("caption", folder, *weights, "--format", "jsonl", "--quiet")
            seconds.append(time.perf_counter() - start)
    return (len(images) - 1) / max(seconds[1] - seconds[0], 1e-9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder")
    parser.add_argument("--weights", help="checkpoint (default: the shipped one)")
    parser.add_argument("--requests", type=int, default=1000, help="for each number of clients")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    args = parser.parse_args()
    weights = ["--weights", str(Path(args.weights).resolve())] if args.weights else []
    images = list(islice(find_images([args.images]), args.requests))
    if len(images) < 2:
        parser.error(f"{args.images} needs at least two images")
    before = folder_speed(images, weights)
    rows, failures = [], 0
    with running_server(BUILD, *weights) as server:
        load(server, images, 8, 1)  # to warm up
        memory = [server.megabytes()]
        for clients in args.clients:
            latencies, failed, seconds = load(server, images, args.requests, clients)
            failures += failed
            memory.append(server.megabytes())
            rows.append((clients, len(latencies) / seconds, sorted(latencies)))
        time.sleep(60)
        memory.append(server.megabytes())
    speed = statistics.mean([before, folder_speed(images, weights)])
    print("| clients | captions/s | of the folder's | median | 99th percentile |\n|---|---|---|---|---|")
    for clients, rate, latencies in rows:
        if not latencies:
            print(f"| {clients} | 0 | 0% | | |")
            continue
        middle, high = statistics.median(latencies), latencies[int(0.99 * (len(latencies) - 1))]
        print(f"| {clients} | {rate:.1f} | {rate / speed:.0%} | {middle:.2f} s | {high:.2f} s |")
    print(f"\nFolder: {speed:.1f} captions/s. {args.requests} requests a row, {failures} failed.")
    print(f"Memory, MB, at first, after each row and a minute later: {', '.join(f'{value:.0f}' for value in memory)}.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
