"""Data made on the spot: worlds, clips, solids."""
