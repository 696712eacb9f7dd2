"""Config, state, step, many devices, checkpoints, the loop and evaluation."""
