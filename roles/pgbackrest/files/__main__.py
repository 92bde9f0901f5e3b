"""Starts the job: ``python3 -I -B FOLDER``."""

import sys

from pgbackrest_job.cli import main

sys.exit(main(sys.argv[1:]))
