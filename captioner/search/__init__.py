"""Finding images by a sentence: log P(text | image) over encoded images."""
