"""Attributes: words that the captions of an image are likely to hold, as more places for attention to look at.

They are predicted from the image (Fang et al. 2015, "From captions to visual concepts and back", section 3), and the
decoder attends to the vectors of these words (You et al. 2016, "Image captioning with semantic attention"). So it can
write a word that it has seen in few captions beside an image, and learn to write about words from captions that have
no image at all.
"""

import torch
from torch import Tensor, nn

from captioner.model.config import ModelConfig

_WIDTH = 256
_LEAST = 1e-6  # probability; its logarithm is finite


class Attributes(nn.Module):
    """Predicts attributes, and makes of them what the decoder begins with and looks at.

    Args:
        config: its ``attributes`` says how many words of an image are shown to the decoder.
        state: length of the decoder's first state.
    """

    log_frequency: Tensor

    def __init__(self, config: ModelConfig, state: int) -> None:
        super().__init__()
        self.count = config.attributes
        self.of_image = nn.Sequential(
            nn.Linear(config.channels, _WIDTH),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(_WIDTH, config.vocabulary_size),
        )
        self.of_words = nn.Linear(config.embedding_size, 2 * config.attention_size)  # keys and values
        self.initial = nn.Linear(config.embedding_size, state, bias=False)
        nn.init.zeros_(self.initial.weight)
        # Of each word, in captions of any image; what is expected of all images says nothing about one.
        self.register_buffer("log_frequency", torch.full((config.vocabulary_size,), -5.0))

    def logits(self, regions: Tensor) -> Tensor:
        """Score how likely an image's captions hold each word: ``(batch, regions, channels)`` -> ``(batch, vocab)``."""
        scores: Tensor = self.of_image(regions.mean(dim=1))
        return scores

    def vectors(self, probabilities: Tensor, embedding: Tensor) -> Tensor:
        """Take the words that an image says most about, each vector times the word's probability.

        A word's information gain is ``p log(p / f)``, where ``f`` is its frequency in captions of any image.

        Args:
            probabilities: ``(batch, vocab)``.
            embedding: word vectors ``(vocab, embedding)``.

        Returns:
            ``(batch, attributes, embedding)``.
        """
        probabilities = probabilities.clamp_min(_LEAST)
        gain = probabilities * (probabilities.log() - self.log_frequency)
        words = gain.topk(self.count, dim=-1).indices
        return embedding[words] * probabilities.gather(-1, words).unsqueeze(-1)

    def begin(self, vectors: Tensor) -> Tensor:
        """Compute what the words add to the first state, before its ``tanh``: ``(batch, state)``."""
        added: Tensor = self.initial(vectors.sum(dim=1))
        return added
