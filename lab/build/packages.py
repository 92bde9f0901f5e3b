"""Build the RPM repository of the lab's mirror: Debian's product builds in RHEL layout, signed.

Runs on Debian as root with rpm, createrepo-c and gnupg installed, with the standard library only.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from lab.build import rpm

HERE = Path(__file__).parent / "packages"

# Spec file: the Debian packages that it lays out; the first gives the version.
PRODUCTS = {
    "postgresql": ("postgresql-15", "postgresql-client-15"),
    "redis": ("redis-server", "redis-tools"),
    "haproxy": ("haproxy",),
    "chrony": ("chrony",),
    "socat": ("socat",),
    "pgbackrest": ("pgbackrest",),
}


def image_contents() -> str:
    """Return the names of the packages whose files come with the image, separated by spaces."""
    lines = (HERE / "image-contents.txt").read_text(encoding="utf-8").splitlines()
    return " ".join(line for line in lines if line and not line.startswith("#"))


def build(output: Path, key_home: Path) -> None:
    """Write ``output``/el9/x86_64 with its metadata, and the public key beside ``el9``."""
    repository = output / "el9" / rpm.ARCHITECTURE
    shutil.rmtree(output, ignore_errors=True)
    repository.mkdir(parents=True)
    modules = (HERE / "modules.yaml").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as directory:
        debs = Path(directory)
        versions = rpm.fetch_debian_packages(debs, [name for members in PRODUCTS.values() for name in members])
        for product, members in PRODUCTS.items():
            version = rpm.upstream_version(versions[members[0]])
            macros = {"debs": str(debs), "sources": str(HERE), "debian_version": version}
            rpm.build_rpm(HERE / f"{product}.spec", repository, macros)
            modules = modules.replace(f"@{product}@", version)
    rpm.build_rpm(HERE / "image-contents.spec", repository, {"image_contents": image_contents()})
    rpm.sign(sorted(repository.glob("*.rpm")), key_home)
    rpm.write_metadata(repository, key_home, modules)
    rpm.export_key(key_home, output)


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--key-home", type=Path, required=True)
    arguments = parser.parse_args()
    build(arguments.output, arguments.key_home)


if __name__ == "__main__":
    main()
