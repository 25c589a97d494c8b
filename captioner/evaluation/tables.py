"""Evaluations and comparisons as tables for people, in the x100 of papers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captioner.evaluation.compare import Comparison
    from captioner.evaluation.evaluate import Evaluation
    from captioner.metrics.evaluate import Scores


def describe_images(evaluation: Evaluation) -> str:
    """Says how many images were scored, of how many, and why the others were not."""
    scores, provenance = evaluation.scores, evaluation.provenance
    of_all = "" if scores.images == provenance.available else f" of {provenance.available:,}"
    left_out = {"absent": provenance.absent, "unreadable": provenance.unreadable}
    reasons = ", ".join(f"{count:,} {why}" for why, count in left_out.items() if count)
    skipped = f" ({reasons}: skipped)" if reasons else ""
    return f"{scores.images:,}{of_all} images{skipped}, {scores.references:,} references"


def evaluation_table(evaluation: Evaluation) -> str:
    """Returns figures, intervals, diversity and signature, x100 where that is customary."""
    lines = [describe_images(evaluation), "", f"{'x100':<10}{'figure':>8}{'95% interval':>20}"]
    for name, figure in evaluation.scores.figures.items():
        lines.append(f"{name:<10}{100 * figure:>8.2f}{interval_text(evaluation, name):>20}".rstrip())
    if evaluation.meteor is not None:
        lines.append(f"{'METEOR':<10}{100 * evaluation.meteor:>8.2f}")
    lines += [f"{name:<10}not computed ({why})" for name, why in evaluation.not_computed.items()]
    language = [f"{name:<32}{value}" for name, value in language_rows(evaluation.scores)]
    return "\n".join([*lines, "", *language, "", f"signature: {evaluation.signature}"])


def comparison_table(comparison: Comparison) -> str:
    """Returns both sets of figures, their differences and the images with the largest, x100."""
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
        lines.append(f"  A {100 * contrast.first:6.1f}  {_one_line(contrast.first_caption)}")
        lines.append(f"  B {100 * contrast.second:6.1f}  {_one_line(contrast.second_caption)}")
    signatures = [f"A: {comparison.first.signature}", f"B: {comparison.second.signature}"]
    return "\n".join([*lines, "", *signatures])


def _one_line(caption: str) -> str:
    return " ".join(caption.split())


def interval_text(evaluation: Evaluation, name: str) -> str:
    """Returns the 95 % interval of a metric x100, or nothing where none was computed."""
    if name not in evaluation.intervals:
        return ""
    low, high = evaluation.intervals[name]
    return f"{100 * low:.2f} to {100 * high:.2f}"


def language_rows(scores: Scores) -> list[tuple[str, str]]:
    """Returns the figures about the captions alone, each with what it is."""
    found, broken = scores.diversity, scores.degeneration
    rows = [
        ("distinct words (of all words)", f"{100 * found.distinct_1:.1f}%"),
        ("distinct pairs (of all pairs)", f"{100 * found.distinct_2:.1f}%"),
        ("distinct captions", f"{100 * found.distinct_captions:.1f}%"),
        ("vocabulary used", f"{found.vocabulary:,} words"),
        ("mean length", f"{found.mean_length:.1f} words"),
        ("ending badly (in a)", f"{100 * broken.bad_endings:.1f}%"),
        ("repeated pairs (of all pairs)", f"{100 * broken.repeated_bigrams:.1f}%"),
    ]
    if found.unseen is not None:
        rows.append(("not a training caption", f"{100 * found.unseen:.1f}%"))
    return rows
