"""Files that are whole or not there: run folders, digests, manifests."""
