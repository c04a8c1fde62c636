"""Networks by name, ours and other people's, and their weights."""
