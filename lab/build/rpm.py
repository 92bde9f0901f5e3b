"""Build RPM packages and sign them and their repositories with the key of the lab's mirror.

As a program it writes the signed metadata of a repository, without its packages.
Runs on Debian as root with rpm, createrepo-c and gnupg installed, with the standard library only.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

KEY_NAME = "Bank lab mirror <mirror@bank.internal>"
PUBLIC_KEY = "RPM-GPG-KEY-bank-mirror"
ARCHITECTURE = "x86_64"
# Debian's rpm looks for a gpg that Debian calls otherwise.
GPG = ("--define", "__gpg /usr/bin/gpg")


def run(*command: str | Path, **options: object) -> str:
    """Run a command and return its standard output.

    Raises:
        subprocess.CalledProcessError: the command failed; its messages are on standard error.
    """
    return subprocess.run(
        [str(word) for word in command],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    ).stdout


def fetch_debian_packages(directory: Path, names: Sequence[str]) -> dict[str, str]:
    """Download and unpack the Debian packages below ``directory``; return the Debian version of each."""
    run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *names, cwd=directory)
    versions = {}
    for archive in directory.glob("*.deb"):
        name = archive.name.split("_")[0]
        versions[name] = run("dpkg-deb", "--field", archive, "Version").strip()
        run("dpkg-deb", "--extract", archive, directory / name)
    return versions


def upstream_version(debian_version: str) -> str:
    """Return the part of a Debian version that an RPM version may hold.

    >>> upstream_version("5:7.0.15-1~deb12u10")
    '7.0.15'
    """
    return debian_version.split(":")[-1].split("-")[0]


def build_rpm(spec: Path, output: Path, macros: dict[str, str]) -> None:
    """Build the binary packages of one spec file into ``output``."""
    with tempfile.TemporaryDirectory() as top:
        defines = {
            "_topdir": top,
            "_rpmdir": str(output),
            "_rpmfilename": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
            "_build_id_links": "none",
            "debug_package": "%{nil}",
            "__os_install_post": "%{nil}",
            "_binary_payload": "w3.zstdio",
            **macros,
        }
        words = [word for name, value in defines.items() for word in ("--define", f"{name} {value}")]
        run("rpmbuild", "-bb", "--quiet", "--target", f"{ARCHITECTURE}-linux", *words, spec)


def signing_key(home: Path) -> str:
    """Make the mirror's signing key in ``home`` if it has none; return its fingerprint.

    The key belongs to this machine's lab alone, so it has no passphrase and never leaves the cache.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = {**os.environ, "GNUPGHOME": str(home)}
    listing = ("gpg", "--batch", "--with-colons", "--list-secret-keys")
    if "fpr" not in run(*listing, env=environment):
        quiet = ("gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "")
        run(*quiet, "--quick-generate-key", KEY_NAME, "rsa3072", "sign", "never", env=environment)
    lines = run(*listing, env=environment).splitlines()
    return next(line.split(":")[9] for line in lines if line.startswith("fpr"))


def sign(packages: Sequence[Path], key_home: Path) -> None:
    """Sign packages where they lie."""
    environment = {**os.environ, "GNUPGHOME": str(key_home)}
    name = f"_gpg_name {signing_key(key_home)}"
    run("rpmsign", "--define", name, *GPG, "--addsign", *packages, env=environment)


def write_metadata(repository: Path, key_home: Path, modules: str | None = None) -> None:
    """Write the signed metadata of the packages in ``repository``, with its document of module streams, if any."""
    environment = {**os.environ, "GNUPGHOME": str(key_home)}
    run("createrepo_c", "--quiet", "--simple-md-filenames", repository)
    if modules:
        with tempfile.TemporaryDirectory() as directory:
            document = Path(directory) / "modules.yaml"
            document.write_text(modules, encoding="utf-8")
            run("modifyrepo_c", "--mdtype=modules", "--simple-md-filenames", document, repository / "repodata")
    metadata = repository / "repodata" / "repomd.xml"
    run("gpg", "--batch", "--yes", "--armor", "--detach-sign", metadata, env=environment)


def export_key(key_home: Path, directory: Path) -> None:
    """Write the public key that verifies packages and metadata into ``directory``."""
    environment = {**os.environ, "GNUPGHOME": str(key_home)}
    public = run("gpg", "--batch", "--armor", "--export", signing_key(key_home), env=environment)
    (directory / PUBLIC_KEY).write_text(public, encoding="utf-8")


def index(packages: Sequence[Path], output: Path, key_home: Path) -> None:
    """Write the metadata of packages, wherever they lie, as that of one repository in ``output``."""
    with tempfile.TemporaryDirectory() as directory:
        repository = Path(directory)
        for package in packages:
            (repository / package.name).symlink_to(package)
        write_metadata(repository, key_home)
        shutil.copytree(repository / "repodata", output / "repodata")


def main() -> None:
    """Parse the command line and write the metadata."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--key-home", type=Path, required=True)
    parser.add_argument("packages", type=Path, nargs="+")
    arguments = parser.parse_args()
    index(arguments.packages, arguments.output, arguments.key_home)


if __name__ == "__main__":
    main()
