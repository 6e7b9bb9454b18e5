"""Weights in and out: reads and writes models in every format, by one table of parameter names."""
