from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.captioner import Captioner
from captioner.datasets import DatasetOptions, Record, read_records
from captioner.errors import DatasetError
from captioner.evaluation.retrieval import Retrieval, ranks, retrieve, retrieve_images
from captioner.search.search import Gallery
from captioner.vocabulary import caption_words

MakeGallery = Callable[..., Gallery]


def _rank(captioner: Captioner, images: list[Path], query: str, own: int) -> int:
    """The rank of a query's image by the plainest way: sort the images."""
    values = []
    for image in images:
        (score,) = captioner.score(captioner.encode([captioner.preprocess(image)]), [query])
        values.append(score.log_prob)
    return sorted(range(len(images)), key=lambda place: -values[place]).index(own) + 1


def test_ranks_are_those_of_a_plain_search(images: list[Path], captioner: Captioner, make_gallery: MakeGallery) -> None:
    queries = ["a dog", "a man with the ball", "two birds"] * 3
    queries = [query.replace("birds", "bird") for query in queries][: len(images)]
    found = retrieve(make_gallery(images), queries)
    assert found.ranks.tolist() == [_rank(captioner, images, query, own) for own, query in enumerate(queries)]
    assert (found.dropped, found.shortened) == (0, 0)


def test_the_shipped_weights_rank_twenty_real_images_as_a_plain_search_does(real_data: Path, tmp_path: Path) -> None:
    options = DatasetOptions(dataset=("flickr8k",), data=str(real_data / "flickr8k"))
    records = read_records(options, "dev")[:20]
    captioner = Captioner.load(device="cpu")
    found = retrieve_images(captioner, records, cache=tmp_path)
    regions = captioner.encode([captioner.preprocess(record.path) for record in records])
    words = [caption_words(record.captions[0]) for record in records]
    queries = [" ".join(word for word in of_query if word in captioner.vocabulary) for of_query in words]
    log_probs = np.array([[score.log_prob for score in captioner.score(regions, [query] * 20)] for query in queries])
    order = np.argsort(-log_probs, axis=1)
    expected = [order[own].tolist().index(own) + 1 for own in range(20)]
    assert found.ranks.tolist() == expected
    assert found.dropped == sum(word not in captioner.vocabulary for of_query in words for word in of_query)
    assert found.recall(5) > 0.6


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 3), min_size=n, max_size=n), min_size=n, max_size=n)
    )
)
def test_ties_count_against_the_own_image(values: list[list[int]]) -> None:
    found = ranks(np.array(values, dtype=np.float64))
    for query, row in enumerate(values):
        better = sum(value >= row[query] for place, value in enumerate(row) if place != query)
        assert found[query] == 1 + better


def test_figures() -> None:
    found = Retrieval(np.array([1, 1, 3, 10, 11, 400]), dropped=3, shortened=2, broken=1)
    assert [found.recall(most) for most in (1, 5, 10)] == pytest.approx([2 / 6, 3 / 6, 4 / 6])
    assert found.median_rank == 6.5
    assert found.to_dict() == {
        "photos": 6,
        "recall@1": pytest.approx(2 / 6),
        "recall@5": pytest.approx(3 / 6),
        "recall@10": pytest.approx(4 / 6),
        "median_rank": 6.5,
        "dropped_words": 3,
        "shortened_queries": 2,
    }


def test_unknown_words_are_left_out_and_counted(images: list[Path], make_gallery: MakeGallery) -> None:
    gallery = make_gallery(images[:3])
    found = retrieve(gallery, ["a dog runs", "a unicorn and a dragon", "the unicorn man"])
    assert (found.dropped, found.shortened) == (3, 2)
    assert found.ranks.tolist() == retrieve(gallery, ["a dog runs", "a and a", "the man"]).ranks.tolist()


def _records(paths: list[Path]) -> list[Record]:
    return [Record(path.name, path, ("a dog runs", "not this one"), "val") for path in paths]


def test_broken_images_are_an_error_unless_they_may_be_skipped(
    images: list[Path], captioner: Captioner, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_text("no image")
    records = _records([images[0], tmp_path / "broken.jpg", images[1]])
    with pytest.raises(DatasetError, match=r"1 of 3 images are broken: .*broken.jpg.*`skip_missing`"):
        retrieve_images(captioner, records, cache=cache)
    found = retrieve_images(captioner, records, cache=cache, skip_broken=True)
    assert (len(found.ranks), found.broken) == (2, 1)
    expected = retrieve_images(captioner, _records(images[:2]), cache=cache)
    assert found.ranks.tolist() == expected.ranks.tolist()
    with pytest.raises(DatasetError, match="not one could be read"):
        retrieve_images(captioner, records[1:2], cache=cache, skip_broken=True)
