from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from captioner.model.config import ModelConfig
from captioner.model.decoder import Decoder
from captioner.training import losses
from captioner.training.data import make_batch
from captioner.training.losses import CrossEntropy, attention_regularisation, drop_words
from captioner.vocabulary import END, PAD, START, UNKNOWN

pytestmark = pytest.mark.usefixtures("double")

CAPTIONS = [[[START, 5, 6, 7, END], [START, 4, END]], [[START, END], [START, 9, 8, 7, 6, 5, END]]]


def _decoder(cell: str, attention: str, tie: bool) -> Decoder:
    torch.manual_seed(3)
    config = ModelConfig(
        encoder="none",
        image_size=1,
        channels=6,
        vocabulary_size=11,
        cell=cell,
        hidden_size=8,
        embedding_size=8 if tie else 5,
        attention=attention,
        attention_size=8,
        tie_embeddings=tie,
        dropout=0.0,
    )
    return Decoder(config).double()


def _oracle(decoder: Decoder, regions: Tensor, smoothing: float) -> Tensor:
    """One caption at a time, one word at a time, padded; torch ignores the padding."""
    rows, targets = [], []
    for image, captions in enumerate(CAPTIONS):
        for ids in captions:
            state = decoder.initial_state(regions[image : image + 1])
            logits = []
            for word in ids[:-1] + [PAD] * (9 - len(ids)):
                scores, state = decoder.step(torch.tensor([word]), state)
                logits.append(scores)
            rows.append(torch.cat(logits))
            targets.append(torch.tensor(ids[1:] + [PAD] * (9 - len(ids))))
    return nn.functional.cross_entropy(torch.cat(rows), torch.cat(targets), ignore_index=PAD, label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize(
    ("cell", "attention", "tie"),
    [("lstm", "none", True), ("gru", "none", False), ("lstm", "additive", True), ("lstm", "adaptive", True)],
)
def test_loss_and_gradient_equal_torchs_over_padded_logits(
    cell: str, attention: str, tie: bool, smoothing: float
) -> None:
    decoder = _decoder(cell, attention, tie)
    regions = torch.randn(2, 3, 6, dtype=torch.float64)
    batch = make_batch([0, 1], CAPTIONS)

    state = decoder.initial_state(regions).select(batch.owners)
    loss = CrossEntropy(decoder, label_smoothing=smoothing).mean(state, batch.words, batch.lengths)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: value.grad.clone() for name, value in decoder.named_parameters() if value.grad is not None}
    decoder.zero_grad()
    expected = _oracle(decoder, regions, smoothing)
    expected.backward()  # type: ignore[no-untyped-call]

    torch.testing.assert_close(loss, expected)
    assert set(gradients) == {name for name, _ in decoder.named_parameters()}
    for name, value in decoder.named_parameters():
        torch.testing.assert_close(gradients[name], value.grad)


def test_padding_does_not_change_the_loss() -> None:
    decoder = _decoder("lstm", "none", True)
    regions = torch.randn(1, 1, 6, dtype=torch.float64)
    batch = make_batch([0], CAPTIONS)
    state = decoder.initial_state(regions).select(batch.owners)
    wider = nn.functional.pad(batch.words, (0, 4), value=PAD)
    assert torch.equal(
        CrossEntropy(decoder).mean(state, batch.words, batch.lengths),
        CrossEntropy(decoder).mean(state, wider, batch.lengths),
    )


def test_dropped_words_are_read_as_unknown_and_still_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    words = torch.randint(4, 20, (60, 40))
    words[:, 0] = START
    read = drop_words(words, 0.25)
    dropped = read != words
    assert not dropped[:, 0].any()
    assert set(read[dropped].tolist()) == {UNKNOWN}
    assert float(dropped[:, 1:].float().mean()) == pytest.approx(0.25, abs=0.02)

    decoder = _decoder("lstm", "none", tie=True)
    regions = torch.randn(2, 3, 6, dtype=torch.float64)
    captions, lengths = words[:2, :5] % 7 + 4, torch.tensor([4, 4])
    monkeypatch.setattr(losses, "drop_words", lambda read, share: read.clone().fill_(UNKNOWN))
    found = CrossEntropy(decoder, word_dropout=0.5).mean(decoder.initial_state(regions), captions, lengths)
    logits = decoder.logits(decoder.teacher_force(torch.full((2, 4), UNKNOWN), lengths, decoder.initial_state(regions)))
    targets = captions[:, 1:].T.flatten()  # in the order of packed sequences
    torch.testing.assert_close(found, nn.functional.cross_entropy(logits, targets))


def test_narrowness_is_zero_for_even_looks_and_near_one_for_a_single_region() -> None:
    lengths = torch.tensor([3, 2])
    even, single = torch.full((2, 3, 4), 0.25), torch.zeros(2, 3, 4)
    single[..., 1] = 0.3  # the rest is the sentinel's, and does not count
    pack = lambda weights: pack_padded_sequence(weights, lengths, batch_first=True)  # noqa: E731
    assert attention_regularisation(pack(even)) == 0
    torch.testing.assert_close(attention_regularisation(pack(single)), torch.tensor(0.75))
    mixed = torch.stack((even[0], single[0]))
    torch.testing.assert_close(attention_regularisation(pack(mixed)), torch.tensor(0.75 * 2 / 5))  # a mean over words


@pytest.mark.parametrize("attention", ["additive", "adaptive"])
def test_the_spread_adds_the_narrowness_of_where_the_decoder_looks(attention: str) -> None:
    decoder = _decoder("gru", attention, True)
    regions = torch.randn(2, 3, 6, dtype=torch.float64)
    batch = make_batch([0, 1], CAPTIONS)
    state = decoder.initial_state(regions).select(batch.owners)
    plain, spread = (
        CrossEntropy(decoder, regularisation=weight).mean(state, batch.words, batch.lengths) for weight in (0.0, 2.0)
    )
    found: list[PackedSequence] = []
    decoder.teacher_force(batch.words[:, :-1], batch.lengths, state, on_attention=found.append)
    weights = pad_packed_sequence(found[0], batch_first=True)[0].detach()
    expected, words = 0.0, int(batch.lengths.sum())
    for row, length in zip(weights, batch.lengths.tolist(), strict=True):
        shares = row[:length].sum(dim=0) / row[:length].sum()
        expected += length / words * float(((shares - 1 / 3) ** 2).sum())
    assert (spread - plain).item() == pytest.approx(2 * expected)
    (gradient,) = torch.autograd.grad(spread - plain, decoder.attention.of_state.weight)  # type: ignore[union-attr]
    assert gradient.abs().max() > 0
