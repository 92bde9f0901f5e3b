"""Makes three releases from the lab's own: a good one, one that is never ready, and one that is not once it serves."""

import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from lab.mirror import build_bank

OUTPUT = Path(sys.argv[1])
NEVER_READY = """

def check_all(found):
    return {"database": "spoiled on purpose"}
"""
# check-config works in a process of its own; only what gunicorn runs is spoiled.
NOT_READY_ONCE_IT_SERVES = """

import sys
if "gunicorn" in sys.argv[0]:
    def check_all(found):
        return {"database": "spoiled on purpose"}
"""


def make(tree: Path, version: str, extra: str) -> None:
    """Pack the unpacked release as another version, with a statement at the end of its health check."""
    packages = next(tree.glob("lib/python*/site-packages"))
    metadata = next(packages.glob("bank-*.dist-info"))
    init, health = packages / "bank/__init__.py", packages / "bank/services/health.py"
    old, healthy = metadata.name.removeprefix("bank-").removesuffix(".dist-info"), health.read_text()
    metadata.rename(packages / f"bank-{version}.dist-info")
    init.write_text(init.read_text().replace(old, version))
    health.write_text(healthy + extra)
    with tarfile.open(OUTPUT / f"bank-{version}-cp311-linux-x86_64.tar.gz", "w:gz", compresslevel=1) as archive:
        for path in sorted(tree.iterdir()):
            archive.add(path, arcname=path.name)
    health.write_text(healthy)


OUTPUT.mkdir(parents=True, exist_ok=True)
with tempfile.TemporaryDirectory() as folder:
    tree = Path(folder)
    with tarfile.open(next(build_bank()[0].rglob("bank-*.tar.gz"))) as archive:
        archive.extractall(tree, filter="data")
    for version, extra in (("0.2.1", ""), ("0.2.2", NEVER_READY), ("0.2.3", NOT_READY_ONCE_IT_SERVES)):
        make(tree, version, extra)
