from __future__ import annotations

import itertools

import pytest
import torch

from captioner.model.attention import AdditiveAttention
from captioner.model.config import CELLS, ModelConfig
from captioner.model.decoder import Decoder

SMALL = {
    "encoder": "efficientnet_lite0",
    "image_size": 224,
    "channels": 6,
    "vocabulary_size": 11,
    "hidden_size": 8,
    "embedding_size": 8,
    "attention_size": 5,
}


def small_decoder(**changes: object) -> Decoder:
    torch.manual_seed(0)
    return Decoder(ModelConfig(**(SMALL | changes))).double().eval()  # type: ignore[arg-type]


VARIANTS = [
    {"cell": cell, "attention": attention, "tie_embeddings": tied, "hidden_size": hidden}
    for cell, attention, tied, hidden in itertools.product(
        ("lstm", "gru"), ("none", "additive"), (True, False), (8, 9)
    )
] + [
    {"cell": cell, "attention": attention, "layers": layers, "residual_layers": layers > 1}
    for cell, attention, layers in itertools.product(CELLS, ("none", "additive"), (1, 3))
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_teacher_forcing_gives_the_logits_of_single_steps(changes: dict[str, object]) -> None:
    decoder = small_decoder(**changes)
    regions = torch.randn(3, 4, 6, dtype=torch.float64)
    words = torch.randint(0, 11, (3, 5))
    lengths = torch.tensor([5, 4, 2])
    unrolled = decoder.logits(decoder.unroll(words, lengths, decoder.initial_state(regions)))
    rows = []
    state = decoder.initial_state(regions)
    for time in range(5):
        logits, state = decoder.step(words[:, time], state)
        rows.append(logits[: int((lengths > time).sum())])
    torch.testing.assert_close(unrolled, torch.cat(rows))


@pytest.mark.parametrize("attention", ["none", "additive"])
def test_expanded_and_reordered_states_follow_their_rows(attention: str) -> None:
    decoder = small_decoder(attention=attention)
    regions = torch.randn(2, 4, 6, dtype=torch.float64)
    wide = decoder.initial_state(regions).expand(3)
    words = torch.tensor([1, 2, 3, 4, 5, 6])
    _, wide = decoder.step(words, wide)
    swapped = wide.reorder(torch.tensor([2, 1, 0, 3, 3, 4]))
    logits, _ = decoder.step(torch.full((6,), 7), swapped)
    for row, (picture, word) in enumerate([(0, 3), (0, 2), (0, 1), (1, 4), (1, 4), (1, 5)]):
        _, state = decoder.step(torch.tensor([word]), decoder.initial_state(regions[picture : picture + 1]))
        alone, _ = decoder.step(torch.tensor([7]), state)
        torch.testing.assert_close(logits[row : row + 1], alone)


def test_the_first_state_is_tanh_of_a_layer_on_the_mean_region() -> None:
    decoder = small_decoder()
    regions = torch.randn(2, 4, 6, dtype=torch.float64)
    expected = torch.tanh(decoder.initial(regions.mean(dim=1))).view(2, 2, 8)
    assert torch.equal(decoder.initial_state(regions).cell, expected)


def test_the_picture_sets_the_first_state_of_all_layers() -> None:
    decoder = small_decoder(layers=3)
    state = decoder.initial_state(torch.randn(2, 4, 6, dtype=torch.float64)).cell
    assert state.shape == (2, 6, 8)
    assert state.abs().min() > 0


def test_tied_embeddings_are_one_tensor() -> None:
    decoder = small_decoder(tie_embeddings=True)
    assert decoder.output.weight is decoder.embedding.weight
    decoder = small_decoder(tie_embeddings=False)
    assert decoder.output.weight is not decoder.embedding.weight


def test_gradients_are_right() -> None:
    decoder = small_decoder(attention="additive", hidden_size=4, embedding_size=3)
    words, lengths = torch.tensor([[1, 2, 3], [1, 4, 0]]), torch.tensor([3, 2])

    def loss(regions: torch.Tensor) -> torch.Tensor:
        return decoder.logits(decoder.unroll(words, lengths, decoder.initial_state(regions)))

    regions = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (regions,))


def test_attention_weights_are_a_distribution_and_make_the_context() -> None:
    torch.manual_seed(1)
    attention = AdditiveAttention(channels=6, hidden_size=4, attention_size=5)
    regions, hidden = torch.randn(2, 7, 6), torch.randn(2, 4)
    context, weights = attention(hidden, regions, attention.keys(regions))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    for picture, place in itertools.product(range(2), range(7)):
        energy = attention.score(
            torch.tanh(attention.of_regions(regions[picture, place]) + attention.of_state(hidden[picture]))
        )
        others = attention.score(
            torch.tanh(attention.of_regions(regions[picture]) + attention.of_state(hidden[picture]))
        )
        torch.testing.assert_close(weights[picture, place], (energy.exp() / others.exp().sum()).squeeze())
    torch.testing.assert_close(context, (weights.unsqueeze(-1) * regions).sum(dim=1))


def test_regions_matter_only_through_their_mean_without_attention() -> None:
    decoder = small_decoder()
    regions = torch.randn(1, 4, 6, dtype=torch.float64)
    logits, _ = decoder.step(torch.tensor([1]), decoder.initial_state(regions))
    shuffled, _ = decoder.step(torch.tensor([1]), decoder.initial_state(regions.flip(1)))
    torch.testing.assert_close(logits, shuffled)
