"""Hypothesis strategies for tokenised captions."""

from __future__ import annotations

from hypothesis import strategies as st

# Few words, so that n-grams match, repeat and clip; one token with a no-break space, as in "1 1/2 pizzas".
words = st.sampled_from(["a", "dog", "cat", "runs", "on", "the", "grass", "1\u00a01/2", "-lrb-", "café"])
captions = st.lists(words, max_size=9)
images = st.tuples(captions, st.lists(captions, min_size=1, max_size=5))
corpora = st.lists(images, min_size=1, max_size=8)
