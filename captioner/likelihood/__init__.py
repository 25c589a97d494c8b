"""How probable the model finds a text, given a picture."""
