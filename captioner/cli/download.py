"""``captioner download``: fetches a public data set into the layout that ``--dataset`` reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from captioner.download.catalog import COLLECTIONS
from captioner.errors import OptionError
from captioner.options import with_flags

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from tqdm import tqdm

    from captioner.download.catalog import Collection
    from captioner.download.fetch import Patience
    from captioner.download.plan import Plan

SUMMARY = "fetch a public data set: COCO, Flickr8k, or Karpathy's splits"
EXAMPLES = """\
examples:
  captioner download coco2017 --split val --to data/coco
  captioner download flickr8k --to data/flickr8k --yes
  captioner download karpathy --to data/karpathy
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``captioner download``."""
    parser.add_argument("collection", choices=sorted(COLLECTIONS), help="what to fetch")
    parser.add_argument("--to", metavar="DIR", required=True, help="folder to put it in")
    parser.add_argument("--split", default="all", help="COCO: only train or only val (default: all)")
    parser.add_argument("--yes", action="store_true", help="do not ask before fetching")


def run(
    args: argparse.Namespace,
    collections: Mapping[str, Collection] = COLLECTIONS,
    patience: Patience | None = None,
) -> int:
    """Says what will be fetched, asks, fetches, and says how to use it.

    Returns:
        0 when everything is in place, 1 when the answer was no.

    Raises:
        OptionError: for an impossible split, or when there is nobody to ask.
        DatasetError: when the data cannot be fetched, checked or written.
    """
    from captioner.download.fetch import Patience
    from captioner.download.plan import carry_out, make_plan

    collection = collections[args.collection]
    folder = Path(args.to).expanduser()
    plan = make_plan(collection, folder, args.split)
    if plan.archives:
        print(_description(plan), file=sys.stderr)
        if not args.yes and not _confirmed(plan):
            print("nothing fetched", file=sys.stderr)
            return 1
        with _Bars() as bars:
            carry_out(plan, patience or Patience(), bars.show)
    state = "is now" if plan.archives else "is already"
    flags = with_flags(collection.use).format(folder=folder)
    print(f"{collection.name} {state} in {folder}; use it with {flags}")
    return 0


def _description(plan: Plan) -> str:
    from captioner.download.fetch import free_space, readable_size

    lines = [f"{plan.collection.name}: {plan.collection.title}"]
    lines += [f"  {readable_size(plan.to_fetch(archive)):>9}  {archive.address}" for archive in plan.archives]
    lines.append(f"licence: {plan.collection.licence}")
    lines.append(
        f"into {plan.folder}: {readable_size(plan.bytes_to_fetch)} to fetch, at most "
        f"{readable_size(plan.bytes_needed)} of disk needed, {readable_size(free_space(plan.folder))} free"
    )
    return "\n".join(lines)


def _confirmed(plan: Plan) -> bool:
    from captioner.download.fetch import readable_size

    if not sys.stdin.isatty():
        raise OptionError("nobody is there to confirm the download", "give --yes to fetch without asking")
    print(f"fetch {readable_size(plan.bytes_to_fetch)}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class _Bars:
    """One progress bar after the other on standard error."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None
        self._label = ""

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, label: str, done: int, total: int) -> None:
        """Moves the bar of ``label``; a new label starts a new bar."""
        from tqdm import tqdm

        bar = self._bar
        if bar is None or label != self._label:
            if bar is not None:
                bar.close()
            bar = tqdm(total=total, desc=label, unit="B", unit_scale=True, initial=done, file=sys.stderr)
            self._bar, self._label = bar, label
        bar.update(done - bar.n)
