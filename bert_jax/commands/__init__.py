"""The commands: a module each, imported when it runs, so that help comes at once."""
