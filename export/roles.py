"""The two base models that every bundle has. Needs no torch."""

ROLES = ("estimator", "classifier")
"""Of the first stage, and of the second."""
