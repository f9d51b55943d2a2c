"""Training in a process of its own: the job that crosses the border, and TRL on the other side."""
