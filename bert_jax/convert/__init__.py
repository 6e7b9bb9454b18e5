"""Weights in and out: models read whatever their format, one table of names, and the formats on top of it."""
