"""Pictures as pixels, and folders of them with captions."""
