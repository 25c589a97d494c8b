"""The earlier path of the tokenizer, kept for one release: ``captioner.tokenize`` is the same function."""

from captioner.metrics.ptb.tokenizer import tokenize

__all__ = ["tokenize"]
