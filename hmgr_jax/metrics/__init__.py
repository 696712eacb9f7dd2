"""Ranks and the field's protocols."""
