"""Whole data sets: certified, kept, counted, forecast."""
