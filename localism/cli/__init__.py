"""The command line: one file a command, or a family of them; main.py puts them together."""
