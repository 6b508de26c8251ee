"""Pieces of one's own."""
