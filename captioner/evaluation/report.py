"""An evaluation or a comparison for people, in the x100 of papers: as a table of text, or as one HTML page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from captioner.datasets.records import ImageId
from captioner.evaluation.evaluate import Comparison, Evaluation
from captioner.files import write_atomically
from captioner.html import CLOSING, opening
from captioner.images.draw import thumbnail_html
from captioner.metrics.coco import Floats
from captioner.metrics.evaluate import Scores


def evaluation_table(evaluation: Evaluation) -> str:
    """Return figures, intervals, diversity and signature, x100 where that is customary."""
    lines = [describe_images(evaluation), "", f"{'x100':<10}{'figure':>8}{'95% interval':>20}"]
    for name, figure in evaluation.scores.figures.items():
        lines.append(f"{name:<10}{100 * figure:>8.2f}{interval_text(evaluation, name):>20}".rstrip())
    if evaluation.meteor is not None:
        lines.append(f"{'METEOR':<10}{100 * evaluation.meteor:>8.2f}")
    if evaluation.spice is not None:
        lines.append(f"{'SPICE':<10}{100 * evaluation.spice:>8.2f}")
    lines += [f"{name:<10}not computed ({why})" for name, why in evaluation.not_computed.items()]
    lines += ["", *domain_rows(evaluation)] if evaluation.domains else []
    language = [f"{name:<32}{value}" for name, value in language_rows(evaluation.scores)]
    return "\n".join([*lines, "", *language, "", f"signature: {evaluation.signature}"])


def domain_rows(evaluation: Evaluation) -> list[str]:
    """Return a table of the parts of the data set that are also scored alone, x100."""
    rows = [f"{'x100':<14}{'images':>8}{''.join(f'{name:>9}' for name in evaluation.scores.figures)}"]
    for domain, scores in evaluation.domains.items():
        figures = "".join(f"{100 * figure:>9.2f}" for figure in scores.figures.values())
        rows.append(f"{domain:<14}{scores.images:>8,}{figures}")
    return rows


def comparison_table(comparison: Comparison) -> str:
    """Return both sets of figures, their differences and the images with the largest, x100."""
    lines = [
        f"{describe_images(comparison.first)}; paired bootstrap, {comparison.resamples} resamples",
        "",
        f"{'x100':<10}{'A':>8}{'B':>8}{'B - A':>8}{'95% interval':>20}{'p':>8}",
    ]
    for name, found in comparison.differences.items():
        low, high = (100 * bound for bound in found.interval)
        figures = "".join(f"{100 * value:>8.2f}" for value in found[:3])
        lines.append(f"{name:<10}{figures}{f'{low:+.2f} to {high:+.2f}':>20}{found.p_value:>8.4f}")
    if comparison.contrasts:
        lines += ["", "largest differences in CIDEr-D of an image (x100)"]
    for contrast in comparison.contrasts:
        lines.append(f"{contrast.image_id}  {100 * (contrast.second - contrast.first):+.1f}")
        lines.append(f"  A {100 * contrast.first:6.1f}  {' '.join(contrast.first_caption.split())}")
        lines.append(f"  B {100 * contrast.second:6.1f}  {' '.join(contrast.second_caption.split())}")
    signatures = [f"A: {comparison.first.signature}", f"B: {comparison.second.signature}"]
    return "\n".join([*lines, "", *signatures])


def describe_images(evaluation: Evaluation) -> str:
    """Say how many images were scored, of how many, and why the others were not."""
    scores, provenance = evaluation.scores, evaluation.provenance
    of_all = "" if scores.images == provenance.available else f" of {provenance.available:,}"
    left_out = {"absent": provenance.absent, "unreadable": provenance.unreadable}
    reasons = ", ".join(f"{count:,} {why}" for why, count in left_out.items() if count)
    skipped = f" ({reasons}: skipped)" if reasons else ""
    return f"{scores.images:,}{of_all} images{skipped}, {scores.references:,} references"


def interval_text(evaluation: Evaluation, name: str) -> str:
    """Return the 95 % interval of a metric x100, or nothing where none was computed."""
    if name not in evaluation.intervals:
        return ""
    low, high = evaluation.intervals[name]
    return f"{100 * low:.2f} to {100 * high:.2f}"


def language_rows(scores: Scores) -> list[tuple[str, str]]:
    """Return the figures about the captions alone, each with what it is."""
    found, broken = scores.diversity, scores.degeneration
    rows = [
        ("distinct words (of all words)", f"{100 * found.distinct_1:.1f}%"),
        ("distinct pairs (of all pairs)", f"{100 * found.distinct_2:.1f}%"),
        ("distinct captions", f"{100 * found.distinct_captions:.1f}%"),
        ("vocabulary used", f"{found.vocabulary:,} words"),
        ("mean length", f"{found.mean_length:.1f} words"),
        ("ending badly (in a)", f"{100 * broken.bad_endings:.1f}%"),
        ("repeated pairs (of all pairs)", f"{100 * broken.repeated_bigrams:.1f}%"),
        ("naming one thing twice", f"{100 * broken.named_twice:.1f}%"),
    ]
    if found.unseen is not None:
        rows.append(("not a training caption", f"{100 * found.unseen:.1f}%"))
    return rows


_SHOWN = 8  # images in each of the three galleries
_BIN = 20  # width of a bar of the histogram, on the scale of CIDEr-D x100

_STYLE = """\
:root { --bar: #3a7bbf; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
.side { display: flex; flex-wrap: wrap; gap: 2rem 4rem; align-items: flex-start; }
table { border-collapse: collapse; }
th, td { text-align: right; padding: .2rem .8rem; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; padding-left: 0; }
td { font-variant-numeric: tabular-nums; }
code { overflow-wrap: anywhere; font-size: .85rem; }
figure { margin: 0; }
figcaption strong { display: block; margin: .3rem 0; }
figcaption ul { margin: .3rem 0; padding-left: 1.2rem; font-size: .9rem; }
small { color: var(--quiet); overflow-wrap: anywhere; }
svg { max-width: 100%; height: auto; }
svg text { fill: currentColor; font-size: 12px; }
"""
_BODY = """\
<h1>{title}</h1>
<p>{images}</p>
<div class="side">
<section><h2>Figures, x100</h2>{figures}</section>
<section><h2>CIDEr-D of the images, x100</h2>{distribution}</section>
<section><h2>Diversity</h2>{diversity}</section>
</div>
{galleries}
<h2>Signature</h2>
<p><code>{signature}</code></p>
"""


def write_report(path: str | Path, evaluation: Evaluation, images: Mapping[ImageId, Path]) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        evaluation: what to show.
        images: where the images lie; one that is not at hand leaves a grey box.

    Raises:
        CaptionerError: the file cannot be written.
    """
    title = f"Captions of {evaluation.provenance.data}"
    body = _BODY.format(
        title=escape(title),
        images=escape(describe_images(evaluation)),
        figures=_figures(evaluation),
        distribution=_histogram(evaluation.scores.per_image["CIDEr"]),
        diversity=_table(("of the captions", ""), language_rows(evaluation.scores)),
        galleries="\n".join(_galleries(evaluation, images)),
        signature=escape(evaluation.signature),
    )
    page = opening(title, _STYLE) + body + CLOSING
    # half a character, which JSON may hold and UTF-8 may not, becomes a question mark
    write_atomically(path, page.encode("utf-8", "replace"))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(c)}</td>" for c in cells)}</tr>'
        for name, *cells in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _figures(evaluation: Evaluation) -> str:
    rows = [
        (name, f"{100 * figure:.2f}", interval_text(evaluation, name))
        for name, figure in evaluation.scores.figures.items()
    ]
    if evaluation.meteor is not None:
        rows.append(("METEOR", f"{100 * evaluation.meteor:.2f}", ""))
    if evaluation.spice is not None:
        rows.append(("SPICE", f"{100 * evaluation.spice:.2f}", ""))
    rows += [(name, "not computed", why) for name, why in evaluation.not_computed.items()]
    return _table(("metric", "figure", "95% interval"), rows)


def _histogram(values: Floats) -> str:
    """Draw how many images have which CIDEr-D, as an SVG of 480 by 240 units."""
    width, height, left, bottom = 480, 240, 40, 36
    top = 100 * max(1, math.ceil(float(values.max())))
    bins = top // _BIN
    counts, edges = np.histogram(100 * values, bins=bins, range=(0, top))
    step, scale = (width - left) / bins, (height - bottom - 16) / counts.max()
    bars = "".join(
        f'<rect x="{left + place * step + 1:.1f}" y="{height - bottom - count * scale:.1f}" '
        f'width="{step - 2:.1f}" height="{count * scale:.1f}" fill="var(--bar)">'
        f"<title>{low:.0f} to {high:.0f}: {count} images</title></rect>"
        for place, (count, low, high) in enumerate(zip(counts.tolist(), edges, edges[1:], strict=False))
    )
    marks = "".join(
        f'<text x="{left + place * step:.1f}" y="{height - bottom + 16}" text-anchor="middle">{edges[place]:.0f}</text>'
        for place in range(0, bins + 1, 100 // _BIN)
    )
    mean = left + float(100 * values.mean() / top) * (width - left)
    return (
        f'<svg viewBox="0 0 {width + 20} {height}" width="{width + 20}" role="img" '
        'aria-label="Histogram of CIDEr-D over images">'
        f'{bars}{marks}<path d="M{left} {height - bottom}H{width}" stroke="currentColor"/>'
        f'<path d="M{mean:.1f} 12V{height - bottom}" stroke="currentColor" stroke-dasharray="4"/>'
        f'<text x="{mean + 4:.1f}" y="12">mean {100 * values.mean():.1f}</text>'
        f'<text x="{left - 6}" y="20" text-anchor="end">{counts.max()}</text>'
        f'<text x="{left - 6}" y="{height - bottom}" text-anchor="end">0</text>'
        f'<text x="{width}" y="{height - 4}" text-anchor="end">CIDEr-D; height: images</text></svg>'
    )


def _galleries(evaluation: Evaluation, images: Mapping[ImageId, Path]) -> Iterator[str]:
    """Yield the best, the median and the worst images by CIDEr-D; of fewer than three, all of them."""
    ranked = np.argsort(-evaluation.scores.per_image["CIDEr"], kind="stable").tolist()
    some = min(_SHOWN, len(ranked) // 3)
    middle = (len(ranked) - some) // 2
    parts = {
        "Best images": ranked[:some],
        "Median images": ranked[middle : middle + some],
        "Worst images": ranked[::-1][:some],
    }
    for title, places in parts.items() if some else [("Photos", ranked)]:
        cards = "\n".join(_card(evaluation, place, images) for place in places)
        yield f'<h2>{title}</h2>\n<div class="gallery">\n{cards}\n</div>'


def _card(evaluation: Evaluation, place: int, images: Mapping[ImageId, Path]) -> str:
    image_id = evaluation.scores.ids[place]
    caption = evaluation.captions[image_id]
    references = "".join(f"<li>{escape(text)}</li>" for text in evaluation.references[image_id])
    cider, bleu = (100 * float(evaluation.scores.per_image[name][place]) for name in ("CIDEr", "BLEU-4"))
    return (
        f"<figure>{thumbnail_html(images.get(image_id), caption)}"
        f"<figcaption><strong>{escape(caption)}</strong>"
        f"<small>CIDEr-D {cider:.1f}, BLEU-4 {bleu:.1f}, image {escape(str(image_id))}</small>"
        f"<ul>{references}</ul></figcaption></figure>"
    )
