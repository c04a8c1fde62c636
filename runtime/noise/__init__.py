"""Noise: where it comes from, how it is added, and what watches over it."""
