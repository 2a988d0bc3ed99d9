"""`python -m scalesearch`."""

from scalesearch.cli import main

main()
