"""``python -m bank`` is the ``bank`` command."""

from bank.cli import main

main()
