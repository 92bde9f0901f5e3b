"""Install the database, the cache and the browser that the application's own tests start for themselves."""

import shutil
import sys
from pathlib import Path

from lab import engine
from lab.settings import LabError


def main() -> None:
    """Install what is missing, on Debian as root; elsewhere say what to install."""
    missing = []
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")) and not shutil.which("initdb"):
        missing.append("postgresql")
    if not shutil.which("redis-server"):
        missing.append("redis-server")
    if not shutil.which("chromium"):
        missing.append("chromium")
    if missing:
        try:
            engine.apt_install(*missing)
        except LabError as error:
            sys.exit(f"tests of the application: {error}")


if __name__ == "__main__":
    main()
