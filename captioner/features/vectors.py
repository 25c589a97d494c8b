"""Ready-made vectors in the place of features that an encoder computes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from captioner.datasets.records import Record
from captioner.datasets.vectors import open_vectors
from captioner.features.store import FeatureRows


class VectorStore:
    """The vectors of one file, which stay where they are.

    Args:
        path: see :func:`captioner.datasets.vectors.open_vectors`.

    Attributes:
        shape: ``(regions, channels)`` of a vector.
        name: what tells these vectors from those of another store, beside their digests.

    Raises:
        DatasetError: the file is absent, damaged, or holds no vectors.
    """

    def __init__(self, path: Path) -> None:
        self.vectors = open_vectors(path)
        _, regions, channels = self.vectors.array.shape
        self.shape = (regions, channels)
        self.name = f"vectors-{regions}x{channels}"

    def features_of(self, records: Sequence[Record]) -> FeatureRows:
        """The vectors of records of this file; each is read once and looked at.

        Equal vectors get one row, as equal photos do: they stand for the same picture.
        """
        wanted = {record.row for record in records}
        digests: dict[int, str] = {}
        problems: dict[int, str] = {}
        with tqdm(total=len(self.vectors), desc="reading vectors", unit="vector", leave=False) as progress:
            for numbers, block in self.vectors.blocks():
                problems |= self.vectors.problems(numbers, block)
                for row, vector in zip(numbers, block, strict=True):
                    if row in wanted and row not in problems:
                        digests[row] = hashlib.sha256(vector.tobytes()).hexdigest()
                progress.update(len(block))
        first: dict[str, int] = {}
        for row, digest in digests.items():
            first.setdefault(digest, row)
        rows = [record.row if record.row is not None else -1 for record in records]
        return FeatureRows(
            array=self.vectors.array,
            rows=np.array([first[digests[row]] if row in digests else -1 for row in rows], dtype=np.int64),
            digests=[digests.get(row, "") for row in rows],
            broken={place: problems[row] for place, row in enumerate(rows) if row in problems},
        )
