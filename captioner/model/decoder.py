"""The decoder: a recurrent language model whose first state is the picture.

Vinyals et al. 2015 ("Show and Tell") feed the picture as the first input; here it sets the initial
hidden and cell state through learned layers, as in Xu et al. 2015, section 3.1.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from captioner.model.attention import AdditiveAttention
from captioner.model.cells import build_cell
from captioner.model.config import ModelConfig


@dataclass(frozen=True)
class State:
    """What the decoder remembers between two words.

    Attributes:
        cell: ``(batch, parts, hidden)``, the recurrent state.
        memory: with attention, the regions ``(batch, regions, channels)`` and their keys
            ``(batch, regions, attention)``; else None.
    """

    cell: Tensor
    memory: tuple[Tensor, Tensor] | None = None

    def select(self, rows: Tensor) -> State:
        """The state of other rows, for instance one row for each caption of a picture."""
        if self.memory is None:
            return State(self.cell[rows])
        regions, keys = self.memory
        return State(self.cell[rows], (regions[rows], keys[rows]))

    def first(self, count: int) -> State:
        """The first ``count`` rows."""
        memory = self.memory and (self.memory[0][:count], self.memory[1][:count])
        return State(self.cell[:count], memory)

    def expand(self, width: int) -> State:
        """Repeat every row ``width`` times, in place beside each other: ``(batch * width, ...)``."""
        rows = torch.arange(len(self.cell), device=self.cell.device)
        return self.select(rows.repeat_interleave(width))

    def reorder(self, rows: Tensor) -> State:
        """Exchange rows *of the same picture*; their memory is equal and stays where it is."""
        return replace(self, cell=self.cell[rows])


class Decoder(nn.Module):
    """Word-level decoder with optional attention and optionally tied embeddings (Press and Wolf 2017)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_size)
        self.attention: AdditiveAttention | None = None
        input_size = config.embedding_size
        if config.attention == "additive":
            self.attention = AdditiveAttention(config.channels, config.hidden_size, config.attention_size)
            input_size += config.channels
        self.cell = build_cell(config.cell, input_size, config.hidden_size)
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
        """First state from the picture, ``tanh`` of a learned layer on the mean region.

        Args:
            regions: ``(batch, regions, channels)``; one region (the mean) is enough without attention.
        """
        pooled = self.dropout(regions.mean(dim=1))
        cell = torch.tanh(self.initial(pooled)).view(len(regions), self.cell.parts, self.hidden_size)
        if self.attention is None:
            return State(cell)
        return State(cell, (regions, self.attention.keys(regions)))

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
        state = self._advance(self.dropout(self.embedding(words)), state)
        return self.logits(state.cell[:, 0]), state

    def unroll(self, words: Tensor, lengths: Tensor, state: State) -> Tensor:
        """Outputs under teacher forcing, at real positions only: padding costs nothing.

        Args:
            words: ``(batch, time)`` ids of the true words, padded; the longest caption first.
            lengths: ``(batch,)`` number of real positions of each row, on the CPU.
            state: first states, one row a caption.

        Returns:
            ``(lengths.sum(), hidden)`` in the order of ``pack_padded_sequence`` (time-major).
        """
        inputs = pack_padded_sequence(self.dropout(self.embedding(words)), lengths, batch_first=True)
        if self.attention is None:
            sequence: Tensor = self.cell(inputs, state.cell)
            return sequence
        outputs = []
        for step in torch.split(inputs.data, inputs.batch_sizes.tolist()):
            # The longest come first, so the captions that go on are the first rows.
            state = self._advance(step, state.first(len(step)))
            outputs.append(state.cell[:, 0])
        return torch.cat(outputs)

    def _advance(self, inputs: Tensor, state: State) -> State:
        if self.attention is not None and state.memory is not None:
            context, _ = self.attention(state.cell[:, 0], *state.memory)
            inputs = torch.cat((inputs, context), dim=-1)
        return replace(state, cell=self.cell.step(inputs, state.cell))
