"""The stages of a run: classifiers, labels, estimator, metrics."""
