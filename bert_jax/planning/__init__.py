"""Plans for hardware that isn't here: compiles the program for it, reads it, and estimates its costs."""
