"""python -m localism: the same as the `localism` command."""

from localism.cli import main

main()
