"""Build the lab's RPMs of the stand-ins. Runs on Debian as root with rpm and gnupg installed."""

import argparse
import tarfile
import tempfile
from pathlib import Path

from lab.build import rpm

HERE = Path(__file__).parent


def build(product: str, version: str, parser: Path | None, output: Path, key_home: Path) -> None:
    """Write the signed package of one stand-in into ``output``."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        rpm.fetch_debian_packages(Path(directory), ("python3-yaml",))
        macros = {"debs": directory, "sources": str(HERE), "product_version": version}
        if parser:
            with tarfile.open(parser) as archive:
                archive.extractall(directory)
            macros["parser"] = str(next(Path(directory).glob("mustache-*/mustache")))
        rpm.build_rpm(HERE / product / f"{product}.spec", output, macros)
    rpm.sign(sorted(output.glob("*.rpm")), key_home)


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--product", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--parser", type=Path, help="archive of the parser of Logstash's language")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--key-home", type=Path, required=True)
    arguments = parser.parse_args()
    build(arguments.product, arguments.version, arguments.parser, arguments.output, arguments.key_home)


if __name__ == "__main__":
    main()
