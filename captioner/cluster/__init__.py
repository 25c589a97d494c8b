"""Folders captioned on a Ray cluster."""
