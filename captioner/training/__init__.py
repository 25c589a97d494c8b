"""Fitting a model: objective, clipping, the loop, and its journal."""
