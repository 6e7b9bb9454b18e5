"""Downstream tasks, one file a family: reading, features, metrics, post-processing. No JAX."""
