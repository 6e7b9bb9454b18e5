"""The command line: a module a command, imported when it runs, so that help comes at once."""
