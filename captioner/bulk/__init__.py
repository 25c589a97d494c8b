"""Long jobs over many images."""
