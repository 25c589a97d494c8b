"""Writing word sequences with a decoder: one loop, several strategies. Knows no pixels."""
