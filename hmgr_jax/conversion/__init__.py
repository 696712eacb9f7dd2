"""Weights of other formats into run folders, and back."""
