"""Long jobs over many pictures."""
