"""Serve an index: one warm process with an API and a page."""
