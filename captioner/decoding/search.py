"""The one decoding loop: every caption, however it is chosen, is written here."""

from typing import Generic, Protocol, TypeVar

import torch

from captioner.decoding.beam import BeamSearch, Constraints, Hypothesis, Wanted
from captioner.decoding.filters import SpecialIds, allowed_words
from captioner.decoding.options import DecodingOptions
from captioner.decoding.sampling import Sampling
from captioner.errors import OptionError

S = TypeVar("S", bound="DecodingState")


class DecodingState(Protocol):
    """What the loop asks of a decoder's state."""

    def reorder(self: S, rows: torch.Tensor) -> S:
        """Give each place another row of the same image."""

    def select(self: S, rows: torch.Tensor) -> S:
        """Give some of the rows, in any order, perhaps several times."""


class StepModel(Protocol, Generic[S]):
    """A decoder as the loop sees it."""

    def initial_state(self, regions: torch.Tensor) -> S:
        """State before the first word, one row an image."""

    def step(self, words: torch.Tensor, state: S) -> tuple[torch.Tensor, S]:
        """Previous words ``(rows,)`` and state -> logits ``(rows, vocab)`` and the next state."""


@torch.inference_mode()
def decode(
    model: StepModel[S],
    regions: torch.Tensor,
    options: DecodingOptions,
    special: SpecialIds,
    seeds: list[int] | None = None,
    wanted: Wanted | None = None,
) -> list[list[Hypothesis]]:
    """Write captions for a batch of images.

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
    device = regions.device
    constraints = Constraints(wanted, device) if wanted is not None and any(wanted) else None
    strategy: BeamSearch | Sampling
    if not options.sampling:
        strategy = BeamSearch(images, options, special.end, device, constraints)
    elif constraints is None:
        strategy = Sampling(seeds or [options.seed] * images, options, special.end)
    else:
        raise OptionError("words can be asked of captions that are searched for, not of drawn ones")
    rows = torch.arange(images, device=device).repeat_interleave(strategy.width)
    state = model.initial_state(regions).select(rows)
    words = torch.empty(len(rows), 0, dtype=torch.long, device=device)
    latest = torch.full_like(rows, special.start)
    for _ in range(options.max_length + 1):
        logits, state = model.step(latest, state)
        log_probs = logits.float().log_softmax(dim=-1)
        allowed = allowed_words(words, log_probs.shape[1], options, special)
        parents, latest = strategy.choose(log_probs, allowed, words)
        if strategy.done():
            break
        state = state.reorder(parents) if len(parents) == len(words) else state.select(parents)
        words = torch.cat((words[parents], latest.unsqueeze(1)), dim=1)
    return strategy.hypotheses()
