"""The run directory: what was asked for, and what came out."""
