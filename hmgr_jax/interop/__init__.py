"""Weights of the official PyTorch releases in, safetensors out; without PyTorch."""
