"""Plans for hardware that is not here: compile for it, read the program, estimate."""
