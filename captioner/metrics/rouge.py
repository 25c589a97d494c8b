"""ROUGE-L as the COCO caption server computes it.

Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries" (section 3), with beta 1.2. Over several
references, the best precision and the best recall are taken separately.
"""

from collections.abc import Mapping, Sequence

BETA = 1.2


def rouge_l(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Compute ROUGE-L of one caption.

    Args:
        hypothesis: words of the caption to judge.
        references: words of each human caption, at least one.

    Returns:
        F-measure of the longest common subsequence, between 0 and 1.
    """
    # The COCO code sees an empty caption as one empty word: two empty captions agree fully, and no length is
    # 0.
    candidate = hypothesis or [""]
    positions = _positions(candidate)
    precision = recall = 0.0
    for reference in references:
        words = reference or [""]
        common = _common_subsequence(positions, len(candidate), words)
        precision = max(precision, common / len(candidate))
        recall = max(recall, common / len(words))
    if precision == 0.0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _positions(words: Sequence[str]) -> dict[str, int]:
    """Return for each word an integer whose bit i is set where the word stands at place i."""
    positions: dict[str, int] = {}
    for place, word in enumerate(words):
        positions[word] = positions.get(word, 0) | 1 << place
    return positions


def _common_subsequence(positions: Mapping[str, int], length: int, words: Sequence[str]) -> int:
    """Return the length of the longest common subsequence.

    One row of the usual table is held as the bits of one integer (Hyyrö 2004, "Bit-parallel LCS-length
    computation revisited"): a zero bit is a place where the row's value rises by one.
    """
    full = (1 << length) - 1
    row = full
    for word in words:
        matches = row & positions.get(word, 0)
        row = (row + matches | row - matches) & full
    return length - row.bit_count()
