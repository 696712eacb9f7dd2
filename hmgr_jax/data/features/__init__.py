"""Feature sets: one vector an image and one a text."""
