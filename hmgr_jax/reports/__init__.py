"""Pictures, sheets and plots of a run."""
