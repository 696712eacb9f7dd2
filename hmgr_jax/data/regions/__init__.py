"""Region features of pictures in SCAN's layout."""
