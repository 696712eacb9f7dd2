"""Where examples come from: sources, text, generated worlds, the Grain pipeline."""
