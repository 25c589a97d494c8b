"""The decoder: a recurrent language model whose first state is the image, and its attention to regions.

Vinyals et al. 2015 ("Show and Tell") feed the image as the first input; here it sets the initial
hidden and cell state through learned layers, as in Xu et al. 2015, section 3.1.2.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.overrides import TorchFunctionMode

from captioner.model.attributes import Attributes
from captioner.model.cells import build_cell
from captioner.model.config import FULL_BPTT, BPTTConfig, ModelConfig

NextInput = Callable[[Tensor, Tensor], Tensor]
OnAttention = Callable[[PackedSequence], None]
Memory = tuple[Tensor, Tensor]
"""What attention has computed of an image's regions, once; both have a row for each image."""


@dataclass(frozen=True)
class State:
    """What the decoder remembers between two words.

    Attributes:
        cell: ``(batch, parts, hidden)``, the recurrent state.
        memory: with attention, what it has computed of the regions; else None. It may have fewer rows: then as many
            rows of ``cell``, one behind the other, belong to each of its images.
    """

    cell: Tensor
    memory: Memory | None = None

    def select(self, rows: Tensor) -> "State":
        """Take the state of other rows, for instance one row for each caption of an image."""
        memory = self.memory and (self.memory[0][rows], self.memory[1][rows])
        return State(self.cell[rows], memory)

    def first(self, count: int) -> "State":
        """Take the first ``count`` rows."""
        if count == len(self.cell):
            return self  # a slice of all rows would still cost a copy of their gradient
        memory = self.memory and (self.memory[0][:count], self.memory[1][:count])
        return State(self.cell[:count], memory)


class Decoder(nn.Module):
    """Word-level decoder with optional attention and optionally tied embeddings (Press and Wolf 2017)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_size)
        self.attention: AdditiveAttention | AdaptiveAttention | None = None
        sizes = (config.channels, config.hidden_size, config.attention_size)
        if config.attention == "additive":
            self.attention = AdditiveAttention(*sizes)
        elif config.attention == "adaptive":
            self.attention = AdaptiveAttention(*sizes, config.attention_heads, config.attributes)
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
        self.attributes = Attributes(config, self.initial.out_features) if config.attributes else None
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
        """Make the first state of all layers from the image, ``tanh`` of a learned layer on the mean region.

        Args:
            regions: ``(batch, regions, channels)``; one region (the mean) is enough without attention.
        """
        seen = self.dropout(regions) if self.attention is not None and not self.reads_context else regions
        words = None
        if self.attributes is not None:
            # Attributes are trained by what captions hold alone, so that they stay probabilities.
            found = self.attributes.logits(regions).sigmoid().detach()
            words = self.attributes.vectors(found, self.embedding.weight)
        memory = None if self.attention is None else self.attention.memory(seen)
        return self._first_state(self.initial(self.dropout(seen.mean(dim=1))), memory, words)

    def state_of_words(self, probabilities: Tensor) -> State:
        """Make the first state of all layers for captions whose image is absent, from their attributes alone.

        Args:
            probabilities: of each word, ``(batch, vocab)``.
        """
        assert self.attributes is not None
        words = self.attributes.vectors(probabilities, self.embedding.weight)
        return self._first_state(self.initial.bias.expand(len(words), -1), None, words)

    def _first_state(self, begun: Tensor, memory: Memory | None, words: Tensor | None) -> State:
        if self.attributes is not None and words is not None:
            assert isinstance(self.attention, AdaptiveAttention)  # the configuration demands it
            begun = begun + self.attributes.begin(words)
            named = self.attention.split(self.attributes.of_words(self.dropout(words)), 2)
            parts = [named] if memory is None else [memory, named]
            keys, values = (torch.cat(each, dim=2) for each in zip(*parts, strict=True))
            memory = keys.contiguous(), values.contiguous()
        return State(torch.tanh(begun).view(len(begun), self.cell.parts, self.hidden_size), memory)

    def logits(self, outputs: Tensor) -> Tensor:
        """Score all words: ``(..., hidden)`` -> ``(..., vocab)``."""
        scores: Tensor = self.output(self.to_embedding(self.dropout(outputs)))
        return scores

    def step(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        """Go one word further.

        Args:
            words: ``(batch,)`` ids of the previous words.
            state: state before them.

        Returns:
            Logits of the next word ``(batch, vocab)`` and the state after ``words``.
        """
        logits, _, state = self.look(words, state)
        return logits, state

    def look(self, words: Tensor, state: State) -> tuple[Tensor, Tensor | None, State]:
        """Go one word further, and show with which weights ``(batch, regions)`` attention looked, if there is any."""
        outputs, weights, state = self._advance(self.dropout(self.embedding(words)), state)
        return self.logits(outputs), weights, state

    def shown(self, state: State) -> tuple[Tensor, Tensor | None]:
        """Compute what a state gives to the output layer.

        Returns:
            Outputs ``(batch, hidden)``, and with adaptive attention the weights of the regions
            ``(batch, regions)`` in them.
        """
        outputs = self.cell.output(state.cell)
        if not isinstance(self.attention, AdaptiveAttention) or state.memory is None:
            return outputs, None
        context, weights = _attend(self.attention, self.attention.of_state(outputs), state.memory)
        return outputs + self.attention.of_context(context), weights

    def teacher_force(
        self,
        words: Tensor,
        lengths: Tensor,
        state: State,
        flow: BPTTConfig = FULL_BPTT,
        next_input: NextInput | None = None,
        on_attention: OnAttention | None = None,
    ) -> Tensor:
        """Compute outputs for known captions, at real positions only: padding costs nothing.

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
            inputs = true._replace(data=self.dropout(self.embedding(true.data)))
            outputs = inputs._replace(data=self._run_whole(inputs, state.cell, flow))
            return self._look(outputs, state, on_attention)
        return self._run_stepwise(true, state, flow, next_input, on_attention)

    def _run_whole(self, inputs: PackedSequence, cell: Tensor, flow: BPTTConfig) -> Tensor:
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
        flow: BPTTConfig,
        next_input: NextInput | None,
        on_attention: OnAttention | None,
    ) -> Tensor:
        """For inputs that depend on the state: the context of attention, words that the model chose."""
        sizes = true.batch_sizes.tolist()
        # Where all words are known in advance, one look-up has one gradient to add up instead of many.
        known = torch.split(self.dropout(self.embedding(true.data)), sizes) if next_input is None else None
        outputs: list[Tensor] = []
        weights: list[Tensor] = []
        for time, words in enumerate(torch.split(true.data, sizes)):
            state = state.first(len(words))  # the longest come first, so those that go on are the first
            if flow.stops_at(time):
                state = replace(state, cell=state.cell.detach())
            if next_input is not None and time:
                words = next_input(outputs[-1][: len(words)], words)
            vectors = self.dropout(self.embedding(words)) if known is None else known[time]
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
            context, weights = _attend(self.attention, self.cell.output(state.cell), state.memory)
            inputs = torch.cat((inputs, context), dim=-1)
        state = replace(state, cell=self.cell.step(inputs, state.cell, hidden_limit))
        outputs, shown = self.shown(state)
        return outputs, weights if shown is None else shown, state

    def _look(self, outputs: PackedSequence, state: State, on_attention: OnAttention | None) -> Tensor:
        """Outputs of whole captions with what adaptive attention finds added, in packed order."""
        if not isinstance(self.attention, AdaptiveAttention) or state.memory is None:
            return outputs.data
        asked = outputs._replace(data=self.attention.of_state(outputs.data))
        padded, lengths = pad_packed_sequence(asked, batch_first=True)
        context, weights = self.attention(padded, state.memory)
        if on_attention is not None and weights.shape[-1]:
            on_attention(pack_padded_sequence(weights, lengths, batch_first=True))
        context = pack_padded_sequence(context, lengths, batch_first=True).data
        found: Tensor = outputs.data + self.attention.of_context(context)
        return found


def _attend(attention: "AdditiveAttention | AdaptiveAttention", asked: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
    """Let rows ask the memory of their images, one after the other: ``(rows, any)`` -> context and weights of each."""
    context, weights = attention(asked.reshape(len(memory[0]), -1, asked.shape[-1]), memory)
    return context.flatten(0, 1), weights.flatten(0, 1)


class AdditiveAttention(nn.Module):
    """Soft additive attention (Bahdanau et al. 2015, eq. 6; for captions Xu et al. 2015, section 3.1.2).

    ``e_i = v . tanh(W a_i + U h)``, ``alpha = softmax(e)``, ``context = sum_i alpha_i a_i``.
    """

    def __init__(self, channels: int, hidden_size: int, attention_size: int) -> None:
        super().__init__()
        self.of_regions = nn.Linear(channels, attention_size)
        self.of_state = nn.Linear(hidden_size, attention_size, bias=False)
        self.score = nn.Linear(attention_size, 1, bias=False)

    def memory(self, regions: Tensor) -> Memory:
        """Give the regions as they are, and ``W a_i`` of each, ``(batch, regions, attention)``."""
        return regions, self.of_regions(regions)

    def forward(self, hidden: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with some states of each image.

        Args:
            hidden: ``(batch, time, hidden)``.
            memory: from :meth:`memory`.

        Returns:
            Context ``(batch, time, channels)`` and weights ``(batch, time, regions)`` that sum to one.
        """
        regions, keys = memory
        energies = self.score(torch.tanh(keys.unsqueeze(1) + self.of_state(hidden).unsqueeze(2))).squeeze(-1)
        weights = energies.softmax(dim=-1)
        return weights @ regions, weights


class AdaptiveAttention(nn.Module):
    """Attention that may look away (Lu et al. 2017, "Knowing when to look", eq. 9 to 13), in several heads.

    The state *after* the cell has read a word asks the regions, and a sentinel beside them that stands for
    what the decoder knows without looking. The context ``c_t`` is their weighted mean; the next word is
    predicted from ``h_t + W c_t``. Because the cell does not read the context, whole captions run through it
    at once, and all of their words attend at once.

    Two things differ from the paper. Energies are scaled dot products in several heads (Vaswani et al. 2017,
    eq. 1) of normalised regions instead of a layer of tanh, so that they are one matrix product; and the
    sentinel is made of ``h_t``, which every cell has, instead of an LSTM's memory. ``W`` begins as zero: a
    fresh model is the one without attention, so that a trained one can be extended.
    """

    def __init__(self, channels: int, hidden_size: int, attention_size: int, heads: int, attributes: int = 0) -> None:
        super().__init__()
        self.heads, self.attributes = heads, attributes
        self.norm = nn.LayerNorm(channels)
        self.of_regions = nn.Linear(channels, 2 * attention_size)  # keys and values
        self.of_state = nn.Linear(hidden_size, 3 * attention_size)  # query; key and value of the sentinel
        self.of_context = nn.Linear(attention_size, hidden_size, bias=False)
        nn.init.zeros_(self.of_context.weight)

    def memory(self, regions: Tensor) -> Memory:
        """Compute keys and values of all regions, each ``(batch, heads, regions, attention / heads)``."""
        keys, values = self.split(self.of_regions(self.norm(regions)), 2)
        # Laid out head by head once; else each step's products would do it again.
        return keys.contiguous(), values.contiguous()

    def forward(self, asked: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with all states of some captions.

        Args:
            asked: ``(batch, time, 3 * attention)``, what ``of_state`` makes of the states.
            memory: from :meth:`memory`, a row for each caption; behind the regions may stand attributes.

        Returns:
            Context ``(batch, time, attention)`` and weights ``(batch, time, regions)``, the mean over the
            heads; what they lack to a sum of one is the sentinel's and the attributes'.
        """
        keys, values = memory
        query, sentinel_key, sentinel_value = self.split(asked, 3)
        query = query / query.shape[-1] ** 0.5
        energies = torch.cat((query @ keys.transpose(-1, -2), (query * sentinel_key).sum(dim=-1, keepdim=True)), dim=-1)
        weights = energies.softmax(dim=-1)
        of_places, of_sentinel = weights[..., :-1], weights[..., -1:]
        context = of_places @ values + of_sentinel * sentinel_value
        of_regions = of_places[..., : of_places.shape[-1] - self.attributes]
        return context.transpose(1, 2).flatten(2), of_regions.mean(dim=1)

    def split(self, vectors: Tensor, count: int) -> tuple[Tensor, ...]:
        """``(batch, rows, count * attention)`` -> ``count`` of ``(batch, heads, rows, size of a head)``."""
        parts = vectors.view(*vectors.shape[:2], count, self.heads, -1)
        return parts.permute(2, 0, 3, 1, 4).unbind()


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
    """Build the decoder of a configuration on torch's ``meta`` device: takes no memory, however large it is."""
    with torch.device("meta"), _NothingDrawn():
        return Decoder(config)
