"""The processes of a run: found, started, watched and stopped together."""
