"""Start of the archive."""

import sys

from elasticsearch_maintenance.cli import main

sys.exit(main(sys.argv[1:]))
