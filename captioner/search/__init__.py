"""Finding pictures by a sentence: log P(text | picture) over encoded pictures."""
