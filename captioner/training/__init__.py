"""Fitting a model: features, objective, clipping, the loop, and its journal."""
