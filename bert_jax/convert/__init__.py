"""Weights in and out: one table of names, and the formats on top of it."""
