"""Captions inside image files and web pages: what they say in words is read and written, and nothing else changes."""
