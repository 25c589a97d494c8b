from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from captioner.model.config import CELLS, ModelConfig
from captioner.model.decoder import AdaptiveAttention, AdditiveAttention, Decoder

pytestmark = pytest.mark.usefixtures("double")

SMALL = {
    "encoder": "efficientnet_lite0",
    "image_size": 224,
    "channels": 6,
    "vocabulary_size": 11,
    "hidden_size": 8,
    "embedding_size": 8,
    "attention_size": 6,
    "attention_heads": 2,
}


def small_decoder(**changes: object) -> Decoder:
    torch.manual_seed(0)
    decoder = Decoder(ModelConfig(**(SMALL | changes))).double().eval()  # type: ignore[arg-type]
    if isinstance(decoder.attention, AdaptiveAttention):  # which starts at zero, as if it were not there
        torch.nn.init.normal_(decoder.attention.of_context.weight)
    return decoder


VARIANTS = [
    {"cell": cell, "attention": attention, "tie_embeddings": tied, "hidden_size": hidden}
    for cell, attention, tied, hidden in itertools.product(
        ("lstm", "gru"), ("none", "additive", "adaptive"), (True, False), (8, 9)
    )
] + [
    {"cell": cell, "attention": attention, "layers": layers, "residual_layers": layers > 1}
    for cell, attention, layers in itertools.product(CELLS, ("none", "additive", "adaptive"), (1, 3))
]
VARIANTS.append({"attention": "adaptive", "attributes": 3})


@pytest.mark.parametrize("changes", VARIANTS)
def test_teacher_forcing_gives_the_logits_of_single_steps(changes: dict[str, object]) -> None:
    decoder = small_decoder(**changes)
    regions = torch.randn(3, 4, 6, dtype=torch.float64)
    words = torch.randint(0, 11, (3, 5))
    lengths = torch.tensor([5, 4, 2])
    unrolled = decoder.logits(decoder.teacher_force(words, lengths, decoder.initial_state(regions)))
    rows = []
    state = decoder.initial_state(regions)
    for time in range(5):
        logits, state = decoder.step(words[:, time], state)
        rows.append(logits[: int((lengths > time).sum())])
    torch.testing.assert_close(unrolled, torch.cat(rows))


@pytest.mark.parametrize("attention", ["none", "additive", "adaptive"])
def test_expanded_and_reordered_states_follow_their_rows(attention: str) -> None:
    decoder = small_decoder(attention=attention)
    regions = torch.randn(2, 4, 6, dtype=torch.float64)
    wide = decoder.initial_state(regions).select(torch.arange(len(regions)).repeat_interleave(3))
    words = torch.tensor([1, 2, 3, 4, 5, 6])
    _, wide = decoder.step(words, wide)
    swapped = wide.select(torch.tensor([2, 1, 0, 3, 3, 4]))
    logits, _ = decoder.step(torch.full((6,), 7), swapped)
    for row, (image, word) in enumerate([(0, 3), (0, 2), (0, 1), (1, 4), (1, 4), (1, 5)]):
        _, state = decoder.step(torch.tensor([word]), decoder.initial_state(regions[image : image + 1]))
        alone, _ = decoder.step(torch.tensor([7]), state)
        torch.testing.assert_close(logits[row : row + 1], alone)


def test_the_first_state_is_tanh_of_a_layer_on_the_mean_region() -> None:
    decoder = small_decoder()
    regions = torch.randn(2, 4, 6, dtype=torch.float64)
    expected = torch.tanh(decoder.initial(regions.mean(dim=1))).view(2, 2, 8)
    assert torch.equal(decoder.initial_state(regions).cell, expected)


def test_the_image_sets_the_first_state_of_all_layers() -> None:
    decoder = small_decoder(layers=3)
    state = decoder.initial_state(torch.randn(2, 4, 6, dtype=torch.float64)).cell
    assert state.shape == (2, 6, 8)
    assert state.abs().min() > 0


def test_tied_embeddings_are_one_tensor() -> None:
    decoder = small_decoder(tie_embeddings=True)
    assert decoder.output.weight is decoder.embedding.weight
    decoder = small_decoder(tie_embeddings=False)
    assert decoder.output.weight is not decoder.embedding.weight


@pytest.mark.parametrize("attention", ["additive", "adaptive"])
def test_gradients_are_right(attention: str) -> None:
    decoder = small_decoder(attention=attention, hidden_size=4, embedding_size=3)
    words, lengths = torch.tensor([[1, 2, 3], [1, 4, 0]]), torch.tensor([3, 2])

    def loss(regions: torch.Tensor) -> torch.Tensor:
        return decoder.logits(decoder.teacher_force(words, lengths, decoder.initial_state(regions)))

    regions = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (regions,))


def test_attention_weights_are_a_distribution_and_make_the_context() -> None:
    torch.manual_seed(1)
    attention = AdditiveAttention(channels=6, hidden_size=4, attention_size=5)
    regions, hidden = torch.randn(2, 7, 6), torch.randn(2, 3, 4)
    context, weights = attention(hidden, attention.memory(regions))
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 3))
    for image, time, place in itertools.product(range(2), range(3), range(7)):
        asked = attention.of_state(hidden[image, time])
        energy = attention.score(torch.tanh(attention.of_regions(regions[image, place]) + asked))
        others = attention.score(torch.tanh(attention.of_regions(regions[image]) + asked))
        torch.testing.assert_close(weights[image, time, place], (energy.exp() / others.exp().sum()).squeeze())
    torch.testing.assert_close(context, (weights.unsqueeze(-1) * regions.unsqueeze(1)).sum(dim=2))


def test_adaptive_attention_weighs_regions_and_a_sentinel_in_each_head() -> None:
    torch.manual_seed(1)
    attention = AdaptiveAttention(channels=6, hidden_size=4, attention_size=6, heads=2)
    regions, hidden = torch.randn(2, 7, 6), torch.randn(2, 3, 4)
    context, weights = attention(attention.of_state(hidden), attention.memory(regions))
    for image, time in itertools.product(range(2), range(3)):
        keys, values = attention.of_regions(attention.norm(regions[image])).chunk(2, dim=-1)
        query, sentinel_key, sentinel_value = attention.of_state(hidden[image, time]).chunk(3)
        seen = torch.zeros(7)
        for head in (slice(0, 3), slice(3, 6)):
            every_key = torch.cat((keys[:, head], sentinel_key[None, head]))
            every_value = torch.cat((values[:, head], sentinel_value[None, head]))
            shares = (every_key @ query[head] / 3**0.5).softmax(dim=0)
            torch.testing.assert_close(context[image, time, head], shares @ every_value)
            seen += shares[:-1] / 2
        torch.testing.assert_close(weights[image, time], seen)


def test_a_fresh_decoder_with_adaptive_attention_says_what_one_without_says() -> None:
    torch.manual_seed(0)
    without = Decoder(ModelConfig(**SMALL)).eval()  # type: ignore[arg-type]
    extended = Decoder(ModelConfig(**SMALL, attention="adaptive")).eval()  # type: ignore[arg-type]
    missing, unexpected = extended.load_state_dict(without.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("attention.") for name in missing)
    regions, words = torch.randn(2, 4, 6), torch.tensor([[1, 2, 3], [1, 4, 5]])
    lengths = torch.tensor([3, 3])
    torch.testing.assert_close(
        extended.teacher_force(words, lengths, extended.initial_state(regions)),
        without.teacher_force(words, lengths, without.initial_state(regions)),
    )


@pytest.mark.parametrize("attention", ["additive", "adaptive"])
def test_looking_back_gives_the_weights_that_each_step_used(attention: str) -> None:
    decoder = small_decoder(attention=attention)
    regions, words = torch.randn(2, 4, 6, dtype=torch.float64), torch.tensor([[1, 2, 3], [1, 4, 5]])
    found: list[PackedSequence] = []
    state, lengths = decoder.initial_state(regions), torch.tensor([3, 3])
    decoder.teacher_force(words, lengths, state, on_attention=found.append)
    weights, _ = pad_packed_sequence(found[0], batch_first=True)
    assert weights.shape == (2, 3, 4)
    assert weights.min() > 0
    total = weights.sum(dim=-1)
    torch.testing.assert_close(total, torch.ones_like(total)) if attention == "additive" else None
    assert (total < 1 + 1e-9).all()
    # A region that is looked at matters in proportion: what the weights say is what the logits feel.
    state = decoder.initial_state(regions)
    first, second = state.memory or ()
    seen = second if attention == "adaptive" else first
    seen.requires_grad_()
    logits, _ = decoder.step(words[:, 0], state)
    (gradient,) = torch.autograd.grad(logits.sum(), seen)
    assert (gradient != 0).any()


def test_regions_matter_only_through_their_mean_without_attention() -> None:
    decoder = small_decoder()
    regions = torch.randn(1, 4, 6, dtype=torch.float64)
    logits, _ = decoder.step(torch.tensor([1]), decoder.initial_state(regions))
    shuffled, _ = decoder.step(torch.tensor([1]), decoder.initial_state(regions.flip(1)))
    torch.testing.assert_close(logits, shuffled)
