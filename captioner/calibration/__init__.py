"""Fitting how sure a model's captions are, on photos that it was not trained on."""
