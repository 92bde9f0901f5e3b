"""Entry point of ``python -m lab``."""

from lab.cli import main

main()
