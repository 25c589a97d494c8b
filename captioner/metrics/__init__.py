"""Judging captions: tokeniser, metrics, intervals. Knows no model and does not import torch."""
