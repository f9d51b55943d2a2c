"""python -m localism: the same as the `localism` command."""

from localism.cli.main import main

main()
