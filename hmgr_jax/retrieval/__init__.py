"""Scoring all pairs, and search."""
