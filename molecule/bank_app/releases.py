"""Makes three releases from the lab's own: a good one, one that is never ready, and one that is not once it serves."""

import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from lab.mirror import build_bank
from lab.settings import versions

CURRENT = versions()["bank"]
GOOD, NEVER_READY, NOT_READY_ONCE_IT_SERVES = (f"{CURRENT}.post{number}" for number in (1, 2, 3))
# What is put at the end of each release's health check; check-config works in a process of its own, not in gunicorn.
ENDINGS = {
    GOOD: "",
    NEVER_READY: """

def check_all(found):
    return {"database": "spoiled on purpose"}
""",
    NOT_READY_ONCE_IT_SERVES: """

import sys
if "gunicorn" in sys.argv[0]:
    def check_all(found):
        return {"database": "spoiled on purpose"}
""",
}


def make(tree: Path, version: str, ending: str, output: Path) -> None:
    """Pack the unpacked release as another version, with an ending to its health check."""
    packages = next(tree.glob("lib/python*/site-packages"))
    metadata = next(packages.glob("bank-*.dist-info"))
    init, health = packages / "bank/__init__.py", packages / "bank/services/health.py"
    old, healthy = metadata.name.removeprefix("bank-").removesuffix(".dist-info"), health.read_text()
    metadata.rename(packages / f"bank-{version}.dist-info")
    init.write_text(init.read_text().replace(old, version))
    health.write_text(healthy + ending)
    with tarfile.open(output / f"bank-{version}-cp311-linux-x86_64.tar.gz", "w:gz", compresslevel=1) as archive:
        for path in sorted(tree.iterdir()):
            archive.add(path, arcname=path.name)
    health.write_text(healthy)


def main(output: Path) -> None:
    """Write the three archives to a folder."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        shutil.unpack_archive(next(build_bank()[0].rglob("bank-*.tar.gz")), tree)
        for version, ending in ENDINGS.items():
            make(tree, version, ending, output)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
