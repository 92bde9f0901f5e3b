"""Build the RPM repository of the lab's mirror: Debian's product builds in RHEL layout, signed.

Runs on Debian as root with rpm, createrepo-c and gnupg installed, with the standard library only.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent / "packages"
KEY_NAME = "Bank lab mirror <mirror@bank.internal>"
# Debian's rpm looks for a gpg that Debian calls otherwise.
GPG = ("--define", "__gpg /usr/bin/gpg")

# Spec file: the Debian packages that it lays out; the first gives the version.
PRODUCTS = {
    "postgresql": ("postgresql-15", "postgresql-client-15"),
    "redis": ("redis-server", "redis-tools"),
    "haproxy": ("haproxy",),
    "chrony": ("chrony",),
    "socat": ("socat",),
}


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


def upstream_version(debian_version: str) -> str:
    """Return the part of a Debian version that an RPM version may hold.

    >>> upstream_version("5:7.0.15-1~deb12u10")
    '7.0.15'
    """
    return debian_version.split(":")[-1].split("-")[0]


def fetch_debian_packages(directory: Path) -> dict[str, str]:
    """Download and unpack the Debian packages below ``directory``; return the version of each."""
    names = [name for members in PRODUCTS.values() for name in members]
    run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *names, cwd=directory)
    versions = {}
    for archive in directory.glob("*.deb"):
        name = archive.name.split("_")[0]
        versions[name] = upstream_version(run("dpkg-deb", "--field", archive, "Version").strip())
        run("dpkg-deb", "--extract", archive, directory / name)
    return versions


def image_contents() -> str:
    """Return the names of the packages whose files come with the image, separated by spaces."""
    lines = (HERE / "image-contents.txt").read_text(encoding="utf-8").splitlines()
    return " ".join(line for line in lines if line and not line.startswith("#"))


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
        run("rpmbuild", "-bb", "--quiet", "--target", "x86_64-linux", *words, spec)


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


def publish(repository: Path, key_home: Path, versions: dict[str, str]) -> None:
    """Sign the packages of ``repository`` and write its signed metadata and public key."""
    fingerprint = signing_key(key_home)
    environment = {**os.environ, "GNUPGHOME": str(key_home)}
    packages = sorted(repository.glob("*.rpm"))
    run("rpmsign", "--define", f"_gpg_name {fingerprint}", *GPG, "--addsign", *packages, env=environment)
    run("createrepo_c", "--quiet", "--simple-md-filenames", repository)
    modules = (HERE / "modules.yaml").read_text(encoding="utf-8")
    for product, members in PRODUCTS.items():
        modules = modules.replace(f"@{product}@", versions[members[0]])
    with tempfile.TemporaryDirectory() as directory:
        document = Path(directory) / "modules.yaml"
        document.write_text(modules, encoding="utf-8")
        run("modifyrepo_c", "--mdtype=modules", "--simple-md-filenames", document, repository / "repodata")
    metadata = repository / "repodata" / "repomd.xml"
    run("gpg", "--batch", "--yes", "--armor", "--detach-sign", metadata, env=environment)
    public = run("gpg", "--batch", "--armor", "--export", fingerprint, env=environment)
    (repository.parents[1] / "RPM-GPG-KEY-bank-mirror").write_text(public, encoding="utf-8")


def build(output: Path, key_home: Path) -> None:
    """Write ``output``/el9/x86_64 with its metadata, and the public key beside ``el9``."""
    repository = output / "el9" / "x86_64"
    shutil.rmtree(output, ignore_errors=True)
    repository.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as directory:
        debs = Path(directory)
        versions = fetch_debian_packages(debs)
        for product, members in PRODUCTS.items():
            macros = {"debs": str(debs), "sources": str(HERE), "debian_version": versions[members[0]]}
            build_rpm(HERE / f"{product}.spec", repository, macros)
    build_rpm(HERE / "image-contents.spec", repository, {"image_contents": image_contents()})
    publish(repository, key_home, versions)


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--key-home", type=Path, required=True)
    arguments = parser.parse_args()
    build(arguments.output, arguments.key_home)


if __name__ == "__main__":
    main()
