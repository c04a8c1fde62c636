"""Graphs of old operator sets in the forms of newer ones: one table, a module for each kind of change."""
