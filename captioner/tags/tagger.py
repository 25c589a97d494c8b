"""From region features to what is in the picture, in words of a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captioner.tags.concepts import Concept, read_concepts
from captioner.vocabulary import Vocabulary

_LEAST_FOR_BORROWED = 0.5  # below, classes that captions have no word for are mostly mistaken (docs/tags.md)


@dataclass(frozen=True)
class Tag:
    """Something that the classifier is sure to see.

    Attributes:
        name: what it is called.
        probability: that it is there, as the classifier finds.
        ids: words that name it; one of them in a caption is enough.
        names: for those of ``ids`` that stand in the place of another word, which the vocabulary lacks, that
            word.
    """

    name: str
    probability: float
    ids: frozenset[int]
    names: Mapping[int, str]


class Tagger:
    """Names what a classifier sees.

    Args:
        classifier: logits of classes from the mean region.
        vocabulary: words that captions are written in; concepts that it cannot name are left out.
    """

    def __init__(self, classifier: nn.Linear, vocabulary: Vocabulary) -> None:
        self.classifier = classifier
        found = [(concept, *_names(concept, vocabulary)) for concept in read_concepts()]
        self.concepts = [(concept, ids, names) for concept, ids, names in found if ids]
        members = torch.zeros(len(self.concepts), classifier.out_features)
        for row, (concept, *_) in enumerate(self.concepts):
            members[row, list(concept.classes)] = 1.0
        self.members = members.to(classifier.weight.device)

    @torch.inference_mode()
    def tags(self, regions: Tensor, threshold: float) -> list[list[Tag]]:
        """What is in each picture with at least a probability of ``threshold``, the surest first.

        Args:
            regions: ``(pictures, regions, channels)`` as the encoder gives them.
            threshold: above 0.
        """
        probabilities = self.classifier(regions.mean(dim=1)).softmax(dim=1) @ self.members.T
        found = []
        for of_picture in probabilities.tolist():
            tags = [
                Tag(concept.words[0], probability, ids, names)
                for probability, (concept, ids, names) in zip(of_picture, self.concepts, strict=True)
                if probability >= (max(threshold, _LEAST_FOR_BORROWED) if names else threshold)
            ]
            found.append(sorted(tags, key=lambda tag: -tag.probability))
        return found


def _names(concept: Concept, vocabulary: Vocabulary) -> tuple[frozenset[int], dict[int, str]]:
    """The ids that name a concept, and what those are to say that are borrowed."""
    own = [word for word in concept.words if word in vocabulary]
    if own:
        return frozenset(vocabulary.encode(own)), {}
    pairs = zip(concept.like, concept.words, strict=False)
    # The first of equal words wins: "deer deer" says the singular.
    borrowed = {like: word for like, word in reversed(list(pairs)) if like in vocabulary}
    names = dict(zip(vocabulary.encode(borrowed), borrowed.values(), strict=True))
    return frozenset(names), names
