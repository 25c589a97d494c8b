from __future__ import annotations

from typing import TYPE_CHECKING

from captioner.evaluation.evaluate import compare_evaluations
from captioner.evaluation.report import comparison_table, describe_images, evaluation_table

if TYPE_CHECKING:
    from captioner.evaluation.evaluate import Evaluation


def test_says_how_many_images_of_how_many_and_why(evaluation: Evaluation) -> None:
    assert describe_images(evaluation) == "6 of 8 images (2 absent: skipped), 18 references"


def test_the_table_is_x100_and_says_so(evaluation: Evaluation) -> None:
    table = evaluation_table(evaluation)
    lines = {line.split()[0]: line.split() for line in table.splitlines() if line}
    assert lines["x100"][1:] == ["figure", "95%", "interval"]
    for name, figure in evaluation.scores.figures.items():
        low, high = evaluation.intervals[name]
        assert lines[name][1:] == [f"{100 * figure:.2f}", f"{100 * low:.2f}", "to", f"{100 * high:.2f}"]
    assert "METEOR    not computed (switched off)" in table
    assert "not a training caption          66.7%" in table
    assert f"ending badly (in a)             {100 * evaluation.scores.degeneration.bad_endings:.1f}%" in table
    assert f"naming one thing twice          {100 * evaluation.scores.degeneration.named_twice:.1f}%" in table
    assert table.endswith(f"signature: {evaluation.signature}")


def test_a_comparison_shows_both_sets_and_both_signatures(evaluation: Evaluation) -> None:
    table = comparison_table(compare_evaluations(evaluation, evaluation, resamples=20, seed=0, top=3))
    bleu = 100 * evaluation.scores.figures["BLEU-1"]
    assert f"BLEU-1   {bleu:>9.2f}{bleu:>8.2f}    0.00      +0.00 to +0.00  1.0000" in table
    assert table.count(evaluation.signature) == 2
    assert "largest differences" not in table
