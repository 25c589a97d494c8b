"""The one decoding loop: every caption, however it is chosen, is written here."""

from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from captioner.decoding.beam import BeamSearch, Constraints, Hypothesis, Wanted, take
from captioner.decoding.filters import Floats, Ints, SpecialIds
from captioner.decoding.options import DecodingOptions
from captioner.decoding.sampling import Sampling
from captioner.errors import OptionError

S = TypeVar("S", bound="DecodingState")


class DecodingState(Protocol):
    """What the loop asks of a decoder's state, which has a row for each image and in it a place for each caption."""

    def select(self: S, images: Ints) -> S:
        """Give some of the images, in any order: ``(images,)`` their rows."""

    def reorder(self: S, parents: Ints) -> S:
        """Give each place another caption of its image: ``(images, width)`` which, perhaps more than before."""


class StepModel(Protocol, Generic[S]):
    """A decoder as the loop sees it."""

    def initial_state(self, regions: Any) -> S:
        """``(images, regions, channels)`` -> state before the first word, one place an image."""

    def step(self, words: Ints, state: S) -> tuple[Floats, S]:
        """Previous words ``(images, width)`` and state -> log-probabilities ``(images, width, vocab)``, next state."""


def decode(
    model: StepModel[S],
    regions: Any,
    options: DecodingOptions,
    special: SpecialIds,
    seeds: list[int] | None = None,
    wanted: Wanted | None = None,
) -> list[list[Hypothesis]]:
    """Write captions for a batch of images.

    An image whose captions are there leaves the batch at once.

    Args:
        model: decoder.
        regions: ``(images, regions, channels)`` as the encoder gives them.
        options: decoding options.
        special: ids that are treated apart.
        seeds: for sampling, one seed an image; by default ``options.seed`` for each.
        wanted: for each image sets of words, of each of which its captions must hold one at least.

    Returns:
        For each image at least one and at most ``options.num_captions`` captions; none where
        ``options.max_length`` leaves no room for the wanted words.

    Raises:
        OptionError: words are wanted of captions that are drawn.
    """
    images = len(regions)
    if images == 0:
        return []
    constraints = Constraints(wanted) if wanted is not None and any(wanted) else None
    strategy: BeamSearch | Sampling
    if not options.sampling:
        strategy = BeamSearch(images, options, special, constraints)
    elif constraints is None:
        strategy = Sampling(seeds or [options.seed] * images, options, special)
    else:
        raise OptionError("words can be asked of captions that are searched for, not of drawn ones")
    # Captions that are searched for begin alike, so that their first step is made once for each image. So do drawn
    # ones, but in training: there dropout is another one for each of them.
    begun = strategy.width if options.sampling else 1
    state = model.initial_state(regions).reorder(np.zeros((images, begun), np.int64))
    words: Ints = np.zeros((images, strategy.width, 0), np.int64)
    latest: Ints = np.full((images, begun), special.start)
    for _ in range(options.max_length + 1):
        begun = latest.shape[1]
        log_probs, state = model.step(latest, state)
        log_probs = np.broadcast_to(log_probs, (*words.shape[:2], log_probs.shape[2]))
        parents, latest = strategy.choose(log_probs, words)
        rows = strategy.leave()
        if not len(rows):
            break
        if len(rows) < len(words):
            state, words, parents, latest = state.select(rows), words[rows], parents[rows], latest[rows]
        state = state.reorder(parents % begun)
        words = np.concatenate((take(words, parents), latest[..., None]), axis=2)
    return strategy.hypotheses()
