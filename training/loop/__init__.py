"""The loop that trains a network, and what feeds it."""
