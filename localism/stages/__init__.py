"""The nine stages.  Each module has `run(context) -> str`: do what is missing, return a summary."""
