"""Reusable Flax modules: graph convolution, memory, attention, recurrent encoders, pooling."""
