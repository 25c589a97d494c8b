"""The decoder: a recurrent language model whose first state is the image.

Vinyals et al. 2015 ("Show and Tell") feed the image as the first input; here it sets the initial
hidden and cell state through learned layers, as in Xu et al. 2015, section 3.1.2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.overrides import TorchFunctionMode

from captioner.model.attention import AdaptiveAttention, AdditiveAttention, Memory
from captioner.model.cells import build_cell
from captioner.model.config import FULL_FLOW, GradientFlow, ModelConfig

NextInput: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
OnAttention: TypeAlias = "Callable[[PackedSequence], None]"


@dataclass(frozen=True)
class State:
    """What the decoder remembers between two words.

    Attributes:
        cell: ``(batch, parts, hidden)``, the recurrent state.
        memory: with attention, what it has computed of the regions; else None.
    """

    cell: Tensor
    memory: Memory | None = None

    def select(self, rows: Tensor) -> State:
        """The state of other rows, for instance one row for each caption of an image."""
        if self.memory is None:
            return State(self.cell[rows])
        first, second = self.memory
        return State(self.cell[rows], (first[rows], second[rows]))

    def first(self, count: int) -> State:
        """The first ``count`` rows."""
        if count == len(self.cell):
            return self  # a slice of all rows would still cost a copy of their gradient
        memory = self.memory and (self.memory[0][:count], self.memory[1][:count])
        return State(self.cell[:count], memory)

    def expand(self, width: int) -> State:
        """Repeat every row ``width`` times, in place beside each other: ``(batch * width, ...)``."""
        rows = torch.arange(len(self.cell), device=self.cell.device)
        return self.select(rows.repeat_interleave(width))

    def reorder(self, rows: Tensor) -> State:
        """Exchange rows *of the same image*; their memory is equal and stays where it is."""
        return replace(self, cell=self.cell[rows])


class Decoder(nn.Module):
    """Word-level decoder with optional attention and optionally tied embeddings (Press and Wolf 2017)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_size)
        self.attention = _build_attention(config)
        # What additive attention finds is read by the cell, what adaptive attention finds is added behind it.
        self.reads_context = isinstance(self.attention, AdditiveAttention)
        input_size = config.embedding_size + (config.channels if self.reads_context else 0)
        self.cell = build_cell(
            config.cell,
            input_size,
            config.hidden_size,
            layers=config.layers,
            nonlinearity=config.nonlinearity,
            residual_layers=config.residual_layers,
            dropout=config.dropout,
        )
        self.initial = nn.Linear(config.channels, self.cell.parts * config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.hidden_size = config.hidden_size
        # The output layer compares with word vectors, so the state is first brought to their length.
        self.to_embedding: nn.Module = nn.Identity()
        if config.hidden_size != config.embedding_size:
            self.to_embedding = nn.Linear(config.hidden_size, config.embedding_size)
        self.output = nn.Linear(config.embedding_size, config.vocabulary_size)
        nn.init.normal_(self.embedding.weight, std=config.embedding_size**-0.5)
        nn.init.zeros_(self.output.bias)
        if config.tie_embeddings:
            self.output.weight = self.embedding.weight

    def initial_state(self, regions: Tensor) -> State:
        """First state of all layers from the image, ``tanh`` of a learned layer on the mean region.

        Args:
            regions: ``(batch, regions, channels)``; one region (the mean) is enough without attention.
        """
        regions = self.dropout(regions) if self.attention is not None and not self.reads_context else regions
        pooled = self.dropout(regions.mean(dim=1))
        cell = torch.tanh(self.initial(pooled)).view(len(regions), self.cell.parts, self.hidden_size)
        if self.attention is None:
            return State(cell)
        return State(cell, self.attention.memory(regions))

    def logits(self, outputs: Tensor) -> Tensor:
        """Scores of all words: ``(..., hidden)`` -> ``(..., vocab)``."""
        scores: Tensor = self.output(self.to_embedding(self.dropout(outputs)))
        return scores

    def step(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        """One word further.

        Args:
            words: ``(batch,)`` ids of the previous words.
            state: state before them.

        Returns:
            Logits of the next word ``(batch, vocab)`` and the state after ``words``.
        """
        outputs, _, state = self._advance(self._embed(words), state)
        return self.logits(outputs), state

    def shown(self, state: State) -> tuple[Tensor, Tensor | None]:
        """What a state gives to the output layer.

        Returns:
            Outputs ``(batch, hidden)``, and with adaptive attention the weights of the regions
            ``(batch, regions)`` in them.
        """
        outputs = self.cell.output(state.cell)
        if not isinstance(self.attention, AdaptiveAttention) or state.memory is None:
            return outputs, None
        context, weights = self.attention(self.attention.asked(outputs).unsqueeze(1), state.memory)
        return outputs + self.attention.of_context(context.squeeze(1)), weights.squeeze(1)

    def teacher_force(
        self,
        words: Tensor,
        lengths: Tensor,
        state: State,
        flow: GradientFlow = FULL_FLOW,
        next_input: NextInput | None = None,
        on_attention: OnAttention | None = None,
    ) -> Tensor:
        """Outputs for known captions, at real positions only: padding costs nothing.

        Args:
            words: ``(batch, time)`` ids of the true words, padded; the longest caption first.
            lengths: ``(batch,)`` number of real positions of each row, on the CPU.
            state: first states, one row a caption.
            flow: how gradients flow back through time.
            next_input: chooses the words that are read from the second step on: from the outputs of the step
                before, ``(rows, hidden)``, and the true words ``(rows,)`` of the captions that still run, it
                makes ``(rows,)`` ids. None reads the true words (teacher forcing).
            on_attention: called once with the weights of the regions at each word, ``(batch, time, regions)``
                packed, with their gradient, by a decoder with attention. They sum to one, with adaptive
                attention to what is left by its sentinel.

        Returns:
            ``(lengths.sum(), hidden)`` in the order of ``pack_padded_sequence`` (time-major).
        """
        true = pack_padded_sequence(words, lengths, batch_first=True)
        if not self.reads_context and next_input is None:
            inputs = true._replace(data=self._embed(true.data))
            outputs = inputs._replace(data=self._run_whole(inputs, state.cell, flow))
            return self._look(outputs, state, on_attention)
        return self._run_stepwise(true, state, flow, next_input, on_attention)

    def _embed(self, words: Tensor) -> Tensor:
        vectors: Tensor = self.dropout(self.embedding(words))
        return vectors

    def _run_whole(self, inputs: PackedSequence, cell: Tensor, flow: GradientFlow) -> Tensor:
        """Whole sequences, or stretches between which no gradient flows, by the cell's fastest way."""
        stretch = flow.truncate or len(inputs.batch_sizes)
        sizes = torch.split(inputs.batch_sizes, stretch)
        data = torch.split(inputs.data, [int(part.sum()) for part in sizes])
        outputs = []
        for number, part in enumerate(zip(data, sizes, strict=True)):
            rows = int(part[1][0])
            output, cell = self.cell(
                PackedSequence(*part), (cell.detach() if number else cell)[:rows], flow.hidden_limit
            )
            outputs.append(output)
        return torch.cat(outputs)

    def _run_stepwise(
        self,
        true: PackedSequence,
        state: State,
        flow: GradientFlow,
        next_input: NextInput | None,
        on_attention: OnAttention | None,
    ) -> Tensor:
        """For inputs that depend on the state: the context of attention, words that the model chose."""
        sizes = true.batch_sizes.tolist()
        # Where all words are known beforehand, one look-up has one gradient to add up instead of many.
        known = torch.split(self._embed(true.data), sizes) if next_input is None else None
        outputs: list[Tensor] = []
        weights: list[Tensor] = []
        for time, words in enumerate(torch.split(true.data, sizes)):
            state = state.first(len(words))  # the longest come first, so those that go on are the first
            if flow.stops_at(time):
                state = replace(state, cell=state.cell.detach())
            if next_input is not None and time:
                words = next_input(outputs[-1][: len(words)], words)
            vectors = self._embed(words) if known is None else known[time]
            output, found, state = self._advance(vectors, state, flow.hidden_limit)
            outputs.append(output)
            if found is not None:
                weights.append(found)
        if on_attention is not None and weights:
            on_attention(true._replace(data=torch.cat(weights)))
        return torch.cat(outputs)

    def _advance(
        self, inputs: Tensor, state: State, hidden_limit: float | None = None
    ) -> tuple[Tensor, Tensor | None, State]:
        """One step: outputs ``(batch, hidden)``, weights of the regions if there is attention, next state."""
        weights = None
        if isinstance(self.attention, AdditiveAttention) and state.memory is not None:
            context, weights = self.attention(self.cell.output(state.cell), state.memory)
            inputs = torch.cat((inputs, context), dim=-1)
        state = replace(state, cell=self.cell.step(inputs, state.cell, hidden_limit))
        outputs, shown = self.shown(state)
        return outputs, weights if shown is None else shown, state

    def _look(self, outputs: PackedSequence, state: State, on_attention: OnAttention | None) -> Tensor:
        """Outputs of whole captions with what adaptive attention finds added, in packed order."""
        if not isinstance(self.attention, AdaptiveAttention) or state.memory is None:
            return outputs.data
        asked = outputs._replace(data=self.attention.asked(outputs.data))
        padded, lengths = pad_packed_sequence(asked, batch_first=True)
        context, weights = self.attention(padded, state.memory)
        if on_attention is not None:
            on_attention(pack_padded_sequence(weights, lengths, batch_first=True))
        context = pack_padded_sequence(context, lengths, batch_first=True).data
        found: Tensor = outputs.data + self.attention.of_context(context)
        return found


def _build_attention(config: ModelConfig) -> AdditiveAttention | AdaptiveAttention | None:
    sizes = (config.channels, config.hidden_size, config.attention_size)
    if config.attention == "additive":
        return AdditiveAttention(*sizes)
    if config.attention == "adaptive":
        return AdaptiveAttention(*sizes, config.attention_heads)
    return None


class _NothingDrawn(TorchFunctionMode):
    """Leaves out drawing from normal distributions, for which torch loads its compiler on ``meta``."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in (nn.init.normal_, Tensor.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def decoder_blueprint(config: ModelConfig) -> Decoder:
    """The decoder of a configuration on torch's ``meta`` device: takes no memory, however large it is."""
    with torch.device("meta"), _NothingDrawn():
        return Decoder(config)
