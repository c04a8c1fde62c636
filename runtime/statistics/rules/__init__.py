"""Rules: from bounds on vote probabilities to a certified radius."""
