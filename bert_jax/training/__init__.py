"""Mesh, optimizer, losses, steps, checkpoints, metrics and the loop."""
