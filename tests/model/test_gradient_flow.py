"""Truncation, limits on dL/dh_t, and words that the model chose itself, through the decoder."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from captioner.errors import OptionError
from captioner.model.config import CELLS, BPTTConfig
from captioner.model.decoder import Decoder, State
from tests.model.test_decoder import small_decoder

WORDS = torch.tensor([[1, 5, 3, 9, 2, 7], [1, 4, 4, 10, 6, 0], [1, 8, 0, 0, 0, 0]])
LENGTHS = torch.tensor([6, 5, 2])

VARIANTS = [
    {"cell": cell, "attention": attention, "layers": layers, "residual_layers": layers > 1}
    for cell, attention, layers in itertools.product(CELLS, ("none", "additive", "adaptive"), (1, 2))
] + [{"cell": "rnn", "nonlinearity": "sigmoid"}]
variants = pytest.mark.parametrize("variant", VARIANTS, ids=lambda found: "-".join(map(str, found.values())))


def regions() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)


def results(
    decoder: Decoder,
    flow: BPTTConfig = BPTTConfig(),  # noqa: B008 (frozen)
    next_input: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Outputs of the captions above, and the gradients of a loss on them by image and weights."""
    image = regions()
    outputs = decoder.teacher_force(WORDS, LENGTHS, decoder.initial_state(image), flow, next_input)
    return outputs, gradients(outputs, image, decoder)


def gradients(outputs: Tensor, image: Tensor, decoder: Decoder) -> list[Tensor]:
    torch.manual_seed(2)
    loss = (outputs * torch.randn_like(outputs)).sum()
    found = torch.autograd.grad(loss, (image, *decoder.parameters()), allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def unrolled_by_hand(decoder: Decoder, image: Tensor, cut: Callable[[int], bool], limit: float | None = None) -> Tensor:
    """One row, one word at a time; the graph is cut before the steps that ``cut`` names."""
    outputs = []
    for row in range(3):
        state = decoder.initial_state(image[row : row + 1])
        for time in range(int(LENGTHS[row])):
            if cut(time):
                state = State(state.cell.detach(), state.memory)
            vectors = decoder.embedding(WORDS[row : row + 1, time])
            output, _, state = decoder._advance(vectors, state, limit)
            outputs.append((time, row, output))
    return torch.cat([output for _, _, output in sorted(outputs, key=lambda found: found[:2])])


@variants
@pytest.mark.parametrize("truncate", [1, 2, 3])
def test_truncation_equals_a_loop_whose_graph_is_cut(variant: dict[str, object], truncate: int) -> None:
    decoder = small_decoder(**variant)
    outputs, found = results(decoder, BPTTConfig(truncate=truncate))
    image = regions()
    expected = unrolled_by_hand(decoder, image, lambda time: time > 0 and time % truncate == 0)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(found, gradients(expected, image, decoder))


@variants
def test_truncation_beyond_the_longest_caption_is_full_backpropagation(variant: dict[str, object]) -> None:
    decoder = small_decoder(**variant)
    full = results(decoder)
    for truncate in (6, 7, 1000):
        torch.testing.assert_close(results(decoder, BPTTConfig(truncate=truncate)), full)
    cut = results(decoder, BPTTConfig(truncate=5))
    torch.testing.assert_close(cut[0], full[0])
    assert not torch.allclose(cut[1][0], full[1][0])


def test_the_image_learns_from_the_first_stretch_alone() -> None:
    decoder = small_decoder()
    image = regions()
    outputs = decoder.teacher_force(WORDS, LENGTHS, decoder.initial_state(image), BPTTConfig(truncate=2))
    early, late = outputs.split([6, 7])  # two steps of three captions, then the rest
    assert torch.autograd.grad(early.sum(), image, retain_graph=True)[0].abs().min() > 0
    assert torch.autograd.grad(late.sum(), image)[0].abs().max() == 0


@variants
def test_a_limit_changes_gradients_but_no_values(variant: dict[str, object]) -> None:
    decoder = small_decoder(**variant)
    full = results(decoder)
    wide, narrow = (results(decoder, BPTTConfig(hidden_limit=limit)) for limit in (1e6, 0.01))
    torch.testing.assert_close(wide, full)
    torch.testing.assert_close(narrow[0], full[0])
    if variant.get("attention") != "adaptive":  # from which a way leads back that meets no hidden state
        assert narrow[1][0].norm() < 0.5 * full[1][0].norm()
    image = regions()
    expected = unrolled_by_hand(decoder, image, lambda time: False, 0.01)
    torch.testing.assert_close(narrow[1], gradients(expected, image, decoder))


@settings(max_examples=25, deadline=None)
@given(
    truncate=st.none() | st.integers(1, 8),
    limit=st.none() | st.floats(1e-3, 3),
    squash=st.sampled_from(["tanh", "sigmoid"]),
)
def test_the_vanilla_cell_equals_a_backward_pass_written_by_hand(
    truncate: int | None, limit: float | None, squash: str
) -> None:
    """dL/dh_t from the output and from step t + 1, cut and limited, then through the equation of the cell."""
    decoder = small_decoder(cell="rnn", nonlinearity=squash)
    core = decoder.cell.core
    inputs = decoder.embedding(WORDS).detach()
    first = torch.randn(3, 8, dtype=torch.float64)
    by_output = torch.randn(3, 6, 8, dtype=torch.float64)  # dL/dh_t that comes from the output at t

    start = first.clone().unsqueeze(1).requires_grad_()
    outputs = decoder.teacher_force(WORDS, LENGTHS, State(start), BPTTConfig(truncate, limit))
    weights = (core.weight_hh_l0, core.weight_ih_l0, core.bias_hh_l0)
    loss = (outputs * pack_padded_sequence(by_output, LENGTHS, batch_first=True).data).sum()
    found = torch.autograd.grad(loss, (start, *weights))

    recurrent, projection, bias = (torch.zeros_like(weight) for weight in weights)
    with torch.no_grad():
        hidden = [first]
        for time in range(6):
            total = inputs[:, time] @ weights[1].T + hidden[-1] @ weights[0].T + weights[2] + core.bias_ih_l0
            hidden.append(total.tanh() if squash == "tanh" else total.sigmoid())
        back = torch.zeros(3, 8, dtype=torch.float64)
        for time in reversed(range(6)):
            running = (time < LENGTHS).double().unsqueeze(1)
            total = (by_output[:, time] + back) * running
            total = total if limit is None else total.clamp(-limit, limit)
            after = hidden[time + 1]
            inner = total * (1 - after**2 if squash == "tanh" else after * (1 - after))
            recurrent += inner.T @ hidden[time]
            projection += inner.T @ inputs[:, time]
            bias += inner.sum(0)
            back = inner @ weights[0]
            if truncate is not None and time > 0 and time % truncate == 0:
                back = torch.zeros_like(back)
    torch.testing.assert_close(found, (back.unsqueeze(1), recurrent, projection, bias))


def test_a_limit_on_the_lstm_leaves_its_memory_alone() -> None:
    """By hand: a narrow limit on dL/dh_t cannot stop what flows along c."""
    decoder = small_decoder(cell="lstm")
    state = State(torch.zeros(3, 2, 8, dtype=torch.float64, requires_grad=True))
    flow = BPTTConfig(hidden_limit=1e-12)
    seen: list[Tensor] = []
    step = decoder.cell.step

    def watched(inputs: Tensor, before: Tensor, limit: float | None) -> Tensor:
        after = step(inputs, before, limit)
        after.register_hook(lambda gradient: seen.append(gradient))
        return after

    decoder.cell.step = watched  # type: ignore[method-assign]
    outputs = decoder.teacher_force(WORDS, LENGTHS, state, flow, lambda _, words: words)
    decoder.cell.step = step  # type: ignore[method-assign]
    outputs.sum().backward()
    by_hidden, by_memory = (torch.cat([gradient[:, part] for gradient in seen]) for part in (0, 1))
    assert by_hidden.abs().max() <= 1e-12
    assert by_memory.abs().max() > 0


@variants
def test_feeding_the_true_words_is_teacher_forcing(variant: dict[str, object]) -> None:
    decoder = small_decoder(**variant)
    for flow in (BPTTConfig(), BPTTConfig(truncate=2), BPTTConfig(truncate=3, hidden_limit=0.01)):
        torch.testing.assert_close(results(decoder, flow, lambda _, words: words), results(decoder, flow))


@pytest.mark.parametrize("attention", ["none", "additive", "adaptive"])
def test_the_words_of_the_feed_are_read_from_the_second_step_on(attention: str) -> None:
    decoder = small_decoder(attention=attention)
    calls: list[tuple[Tensor, Tensor]] = []

    def next_input(outputs: Tensor, words: Tensor) -> Tensor:
        calls.append((outputs, words))
        return decoder.logits(outputs).argmax(dim=-1)

    unrolled, _ = results(decoder, next_input=next_input)
    assert [words.tolist() for _, words in calls] == [[5, 4, 8], [3, 4], [9, 10], [2, 6], [7]]
    assert all(len(outputs) == len(words) for outputs, words in calls)
    rows = []
    state, words = decoder.initial_state(regions()), WORDS[:, 0]
    for time in range(6):
        logits, state = decoder.step(words, state)
        running = int((time < LENGTHS).sum())
        rows.append(decoder.shown(state)[0][:running])
        words = logits.argmax(dim=-1)
    torch.testing.assert_close(unrolled, torch.cat(rows))


@variants
@pytest.mark.parametrize("flow", [BPTTConfig(), BPTTConfig(truncate=2, hidden_limit=1.0)], ids=["full", "limited"])
def test_mixed_precision_trains_every_cell(variant: dict[str, object], flow: BPTTConfig) -> None:
    decoder = small_decoder(**variant).float()
    expected = decoder.teacher_force(WORDS, LENGTHS, decoder.initial_state(regions().float()), flow)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = decoder.teacher_force(WORDS, LENGTHS, decoder.initial_state(regions().float()), flow)
        loss = decoder.logits(outputs).float().logsumexp(dim=1).mean()
    torch.testing.assert_close(outputs.float(), expected, rtol=0.1, atol=0.05)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.cell.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"truncate": 0},
        {"truncate": -1},
        {"truncate": 2.0},
        {"truncate": True},
        {"hidden_limit": 0},
        {"hidden_limit": -5.0},
        {"hidden_limit": math.inf},
        {"hidden_limit": math.nan},
        {"hidden_limit": "5"},
    ],
    ids=str,
)
def test_impossible_limits_are_refused_by_name(change: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=next(iter(change))):
        BPTTConfig(**change)  # type: ignore[arg-type]
