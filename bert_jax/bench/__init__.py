"""Measurements beside a peer, in alternating rounds of one run: on a shared machine only the ratio says much."""
