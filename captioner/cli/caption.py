"""``captioner caption``, ``read``, ``alt``, ``merge`` and ``serve``: images in, captions out."""

import argparse
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import captioner
from captioner.bulk.run import Model, caption_file, model_settings, print_results
from captioner.cli import flags
from captioner.datasets import coco
from captioner.images.find import IMAGE_EXTENSIONS, find_images
from captioner.progress import Progress, Shown, Summary
from captioner.web.options import ServingOptions
from captioner.weights import file_digest, find_weights, read_header

if TYPE_CHECKING:
    from captioner.embed.pages import Page


def _add_caption(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="an image, a folder of images, or a .npy file of vectors"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="report failures only")
    parser.add_argument(
        "--progress",
        choices=("auto", *get_args(Shown)),
        default="auto",
        help="how far it is, on standard error: a bar, lines every half minute, json (an object a line, for programs), "
        "none, or auto: a bar on a terminal, else lines (default: auto)",
    )
    flags.add_options(parser, captioner.FolderOptions, "images and captions", skip=("batch_size",))
    flags.add_model_arguments(parser)
    flags.add_options(parser, captioner.DecodingOptions, "decoding (defaults may be stored in the checkpoint)")


def _caption(args: argparse.Namespace) -> int:
    options = flags.read_options(args, captioner.FolderOptions)
    if options.images_from is not None:
        args.paths, options = _listed_images(args.paths, options, args.weights)
    if not args.paths and options.from_file is None and not options.input_tar:
        raise captioner.OptionError("name an image or a folder, or a list of them with `from_file`")
    with Progress(_shown(args, options), summary=not (args.quiet or options.dry_run)) as progress:
        # Where the suffix is absent, nothing need be imported to find out.
        if any(path.lower().endswith(".npy") for path in args.paths):
            summary = _caption_vectors(args, options, progress)
        else:
            summary = _caption_images(args.paths, options, _model(args), progress)
        progress.summarise(summary)
        return _exit_code(summary, options, progress, quiet=args.quiet)


def _listed_images(
    paths: Sequence[str], options: captioner.FolderOptions, weights: Sequence[str] | None
) -> tuple[list[str], captioner.FolderOptions]:
    """The images of a COCO file, and the options that write a results file of them, named as its server wants it.

    Args:
        paths: the folder of the images, or nothing for the usual one.
        options: with `images_from`.
        weights: the checkpoints, of which the first names the results; the shipped one unless given.

    Raises:
        OptionError: the options contradict each other.
        DatasetError: the file cannot be read, or there is no such folder.
    """
    file = Path(options.images_from or "")
    if len(paths) > 1 or options.from_file is not None or options.input_tar or options.embed:
        what = "`images_from` goes with one folder of images, and with no other list"
        raise captioner.OptionError(what, "leave the rest out")
    if options.format not in (None, "coco") or options.annotations is not None:
        what = "`images_from` writes a COCO results file"
        raise captioner.OptionError(what, "leave out `format` and `annotations`")
    images = coco.listed_images(file, Path(paths[0]) if paths else None)
    name = re.sub(r"[^0-9A-Za-z-]+", "-", Path(weights[0]).stem) if weights else "captioner"
    output = options.output or f"captions_{coco.results_set(file)}_{name}_results.json"
    written = replace(options, images_from=None, format="coco", annotations=os.fspath(file), output=output)
    return [*map(str, images)], written


def _caption_images(paths: list[str], options: captioner.FolderOptions, model: Model, progress: Progress) -> Summary:
    if options.engine == "ray":
        return captioner.caption_on_cluster(paths, options, model, progress)
    if options.prints_lines and not _needs_list(options) and len(paths) == 1 and Path(paths[0]).is_file():
        return caption_file(paths[0], options, model, progress)
    return captioner.caption_folder(paths, options, model, progress)


def _needs_list(options: captioner.FolderOptions) -> bool:
    return bool(options.from_file or options.input_tar or options.shard or options.dry_run)


def _shown(args: argparse.Namespace, options: captioner.FolderOptions) -> Shown:
    if args.progress != "auto":
        shown: Shown = args.progress
        return shown
    # Captions on a terminal are progress enough, and a bar would run into them.
    if args.quiet or options.dry_run or (options.prints and sys.stdout.isatty()):
        return "none"
    return "bar" if sys.stderr.isatty() else "lines"


def _exit_code(summary: Summary, options: captioner.FolderOptions, progress: Progress, *, quiet: bool) -> int:
    if options.dry_run:
        if not quiet:
            counts = f"{summary.remaining:,} to caption", f"{summary.skipped:,} to skip", str(summary.omitted or "")
            progress.say(", ".join(filter(None, counts)))
        return flags.DONE
    if not (summary.interrupted and summary.remaining):
        return flags.FAILED if summary.failed else flags.DONE
    how = "to go on, give the same command"
    if options.prints:
        how = "what was printed is whole; with --output FILE the same command would go on"
    elif options.overwrite and options.output is not None:
        how += " without --overwrite"
    progress.say(f"interrupted; {how}")
    return flags.INTERRUPTED


def _model(args: argparse.Namespace) -> Model:
    """The model of the flags, not yet loaded as far as that can be avoided."""
    paths = [find_weights(name) for name in args.weights or [None]]
    stored = [read_header(path).decoding for path in paths]  # each says what is wrong with its file
    decoding = flags.read_options(args, captioner.DecodingOptions, stored[0])
    digest = "+".join(map(file_digest, paths))
    precision = "fp32" if args.precision == "auto" else args.precision
    settings = model_settings(
        digest, decoding, precision, encoder=args.encoder, image_size=args.image_size, resize=args.resize
    )

    def load(device: str | None = None) -> "captioner.Captioner":
        loaded = flags.open_captioner(args, device=device)
        loaded.check_sees_images()
        return loaded

    return Model(settings, decoding, load, lambda: load("cpu").preprocessing, args.device)


def _caption_vectors(args: argparse.Namespace, options: captioner.FolderOptions, progress: Progress) -> Summary:
    from captioner.vectors import caption_vectors, named_vectors

    vectors = named_vectors(args.paths)
    if not options.prints_lines or _needs_list(options):
        raise captioner.OptionError(
            "captions of vectors are printed as text, jsonl or csv", "leave out options for files of images"
        )
    model, decoding = flags.load_captioner(args)
    results = caption_vectors(model, vectors, decoding, batch_size=options.batch_size)
    return print_results(results, options, progress, several=decoding.num_captions > 1)


def _add_read(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="an image, a folder of images, or an .xmp file")
    parser.add_argument(
        "--format", choices=("text", "jsonl"), default="text", help="of what is printed (default: text)"
    )


def _read(args: argparse.Namespace) -> int:
    from captioner.embed.reading import PROGRAMS, read_captions

    code, path = flags.DONE, None
    for path in find_images(args.paths, extensions=IMAGE_EXTENSIONS | {".xmp"}):
        record: dict[str, object] = {"image": str(path)}
        lines = [flags.one_line(str(path))]
        try:
            fields, shown = read_captions(path)
            record["fields"] = [{"field": f.name, "text": f.text, "by": f.author.name.lower()} for f in fields]
            record["shown"] = {program: shown.get(program) for program in PROGRAMS}
            lines += [f"  {f.name:<38} {flags.one_line(f.text)}{f.author.value}" for f in fields] or ["  no captions"]
            lines += [f"  shown by {PROGRAMS[program]:<29} {flags.one_line(text)}" for program, text in shown.items()]
        except captioner.ImageError as error:
            code, record["error"] = flags.FAILED, str(error)
            flags.say(str(error))
            lines = []
        for line in [json.dumps(record, ensure_ascii=False)] if args.format == "jsonl" else lines:
            print(line)
    if path is None:
        raise captioner.OptionError(f"no images in {', '.join(args.paths)}")
    return code


def _add_alt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PAGE", help="a web page, or a folder of them")
    parser.add_argument("--in-place", action="store_true", help="write alt texts into the pages, not only a report")
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="where addresses such as /img/a.jpg start (default: the folder that was named, or the page's own)",
    )
    parser.add_argument("--format", choices=("text", "jsonl"), default="text", help="of the report (default: text)")
    flags.add_model_arguments(parser)
    title = "decoding (defaults may be stored in the checkpoint)"
    flags.add_options(parser, captioner.DecodingOptions, title, skip=("num_captions",))


def _alt(args: argparse.Namespace) -> int:
    from captioner.embed import pages

    for path in args.paths:
        if not Path(path).exists():
            raise captioner.OptionError(f"{path}: no such page or folder")
    root = None if args.root is None else Path(args.root)
    if root is not None and not root.is_dir():
        raise captioner.OptionError(f"`root` {root}: no such folder")
    model, options = flags.load_captioner(args)
    model.check_sees_images()
    found = pages.describe_pages(
        args.paths, model, options, root=root, in_place=args.in_place, batch_size=args.batch_size
    )
    count, states, broken = 0, Counter[str](), False
    for page in found:
        count, broken = count + 1, broken or page.error is not None
        states.update(image.state for image in page.images)
        for problem in (page.error, *(image.text for image in page.images if image.state == pages.FAILED)):
            if problem is not None:
                flags.say(problem)
        for line in _page_lines(page, as_json=args.format == "jsonl"):
            print(line)
    if not count:
        raise captioner.OptionError(f"no web pages in {', '.join(args.paths)}")
    counts = ", ".join(f"{number:,} {state}" for state, number in states.most_common()) or "no images"
    advice = "; `in_place` writes them" if states[pages.TO_WRITE] and not args.in_place else ""
    flags.say(f"{count:,} page{'s' * (count > 1)}: {counts}{advice}")
    return flags.FAILED if broken or states[pages.FAILED] else flags.DONE


def _page_lines(page: "Page", *, as_json: bool) -> Iterator[str]:
    """An image a line: as JSON all of them, for people those that their author has left without a text."""
    from captioner.embed.pages import FAILED, LEFT_ALONE

    for image in page.images:
        alt, error = (None, image.text) if image.state == FAILED else (image.text, None)
        if as_json:
            record = {"page": str(page.path), "line": image.line, "src": image.source, "state": image.state}
            record |= {"image": image.file and str(image.file), "alt": alt, "error": error}
            yield json.dumps(record, ensure_ascii=False)
        elif image.state not in LEFT_ALONE:
            place, text = f"{page.path}:{image.line}", alt or f"[{image.state}]"
            yield "\t".join(map(flags.one_line, (place, image.source, text)))


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", nargs="+", metavar="SHARD", help="output of one shard")
    parser.add_argument("--output", required=True, metavar="FILE", help="write here")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def _merge(args: argparse.Namespace) -> int:
    from captioner.bulk.merge import merge

    if not merge(args.shards, args.output, overwrite=args.overwrite):
        flags.say("not every shard has its journal beside it: taken as they are, in the order given")
    return flags.DONE


def _add_serve(parser: argparse.ArgumentParser) -> None:
    flags.add_options(parser, ServingOptions, "serving")


def _serve(args: argparse.Namespace) -> int:
    options = flags.read_options(args, ServingOptions)

    from captioner.web.server import serve

    serve(options)
    return flags.DONE


_CAPTION_EXAMPLES = """\
examples:
  captioner caption photo.jpg
  captioner caption PHOTOS --output captions.jsonl          goes on where it was interrupted
  captioner caption PHOTOS --format sidecar --prepend "photo of"
  captioner caption PHOTOS --output sheet.html              thumbnails with captions, for the browser
  captioner caption PHOTOS --embed --output CAPTIONED       captions inside copies of the images
  captioner caption PHOTOS --format xmp                     in XMP files beside the images, for photo managers
  captioner caption PHOTOS --watch --format xmp             and of what comes, until Ctrl-C
  captioner caption PHOTOS --shard 2/8 --output part-2.csv  see captioner merge
  captioner caption --input-tar 'photos-{000..999}.tar' --output captions.jsonl
  captioner caption PHOTOS --engine ray --ray-address auto --output CAPTIONS
  captioner caption test2014 --images-from image_info_test2014.json    results for COCO's server
  captioner caption PHOTOS --format imagefolder --output PHOTOS/metadata.jsonl
  captioner caption photo.jpg --num-captions 5 --beam-size 5
  captioner caption photo.jpg --temperature 0.8 --top-p 0.9 --seed 7
  captioner caption photo.jpg --weights a.safetensors b.safetensors
  captioner caption codes.npy --weights mine.safetensors    vectors that an encoder made before

exit code: 0 all captioned, 1 some failed, 2 wrong use, 130 interrupted
"""

_READ_EXAMPLES = """\
examples:
  captioner read photo.jpg                    each field, who wrote it, and what programs show
  captioner read PHOTOS --format jsonl        for programs; loads no model

exit code: 0 all read, 1 some cannot be read, 2 wrong use, 130 interrupted
"""

_ALT_EXAMPLES = """\
examples:
  captioner alt index.html                 what would be written
  captioner alt SITE --in-place            into all pages of a folder
  captioner alt SITE --format jsonl        every image, also those that are left alone, and why

exit code: 0 all done, 1 some images or pages failed, 2 wrong use, 130 interrupted
"""

_MERGE_EXAMPLES = """\
examples:
  captioner caption PHOTOS --shard 1/2 --output part-1.jsonl      on one machine
  captioner caption PHOTOS --shard 2/2 --output part-2.jsonl      on another
  captioner merge part-1.jsonl part-2.jsonl --output captions.jsonl

The journals beside the shards (part-1.jsonl.journal) hold their order, and whether all shards are present
and finished. Without journals the shards are taken as they are, in the order given.
"""

_SERVE_EXAMPLES = """\
examples:
  captioner serve                                    on this machine, http://127.0.0.1:7860
  captioner serve --weights mine.safetensors --port 8080
  captioner serve --host 0.0.0.0 --auth-file users   for others, with a password
"""

COMMANDS = {
    "caption": flags.Command(_add_caption, _caption, _CAPTION_EXAMPLES),
    "read": flags.Command(_add_read, _read, _READ_EXAMPLES),
    "alt": flags.Command(_add_alt, _alt, _ALT_EXAMPLES),
    "merge": flags.Command(_add_merge, _merge, _MERGE_EXAMPLES),
    "serve": flags.Command(_add_serve, _serve, _SERVE_EXAMPLES),
}
