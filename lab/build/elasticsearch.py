"""Build the lab's RPM of Elasticsearch: Maven Central's server, Debian's Java, laid out as Elastic's package is.

Runs on Debian as root with rpm, gnupg, maven, gcc and a JDK installed, with the standard library only.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from lab.build import rpm

HERE = Path(__file__).parent / "elasticsearch"
# The server as its own integration tests run it: without a JDK, and without most modules.
ARTIFACT = "org.elasticsearch.distribution.integ-test-zip:elasticsearch:{version}:zip"
COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy"
JAVA_PACKAGE = "openjdk-17-jre-headless"
JAVA_FOLDER = "usr/lib/jvm/java-17-openjdk-amd64"
JAVA_RELEASE = "17"
# Files for other systems than the lab's.
FOREIGN = ("bin/*.bat", "bin/*.exe", "lib/platform/darwin-*", "lib/platform/windows-*", "lib/platform/linux-aarch64")
STANDIN_MODULE = "org.elasticsearch.systemd"
STANDIN = "registry-gaps-standin"


def fetch_server(version: str, directory: Path) -> Path:
    """Fetch and unpack the server below ``directory``; return its folder."""
    options = (f"-Dartifact={ARTIFACT.format(version=version)}", f"-DoutputDirectory={directory}")
    # Maven tells its failures on standard output.
    subprocess.run(["mvn", "--batch-mode", "--quiet", COPY_GOAL, *options], check=True, stdout=sys.stderr)
    archive = directory / f"elasticsearch-{version}.zip"
    with zipfile.ZipFile(archive) as content:
        content.extractall(directory)
        for member in content.infolist():
            # zipfile leaves the executable bits out.
            (directory / member.filename).chmod((member.external_attr >> 16) & 0o777 or 0o644)
    archive.unlink()
    home = directory / f"elasticsearch-{version}"
    for pattern in FOREIGN:
        for path in home.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    return home


def place_java(debs: Path, target: Path) -> None:
    """Copy Debian's Java to ``target`` without the links that lead out of it, and give it certificates."""
    root = debs / JAVA_PACKAGE
    source = root / JAVA_FOLDER
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if relative.parts[0] in ("docs", "man") or (path.is_dir() and not path.is_symlink()):
            continue
        origin = path
        if path.is_symlink() and path.readlink().is_absolute():
            # Debian keeps the configuration below /etc and links to it.
            origin = root / path.readlink().relative_to("/")
        if origin.exists():
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(origin, target / relative)
    # Debian's certificates and not this machine's, which may trust more.
    authorities = debs / "ca-certificates/usr/share/ca-certificates"
    rpm.run("java", HERE / "TrustStore.java", authorities, target / "lib/security/cacerts")


def build_standin(version: str, home: Path) -> None:
    """Compile our plugin against the server in ``home`` and put it among its plugins."""
    target = home / "plugins" / STANDIN
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as classes:
        sources = sorted((HERE / "standin").rglob("*.java"))
        rpm.run("javac", "--release", JAVA_RELEASE, "-p", home / "lib", "-d", classes, *sources)
        rpm.run("jar", "--create", "--file", target / f"{STANDIN}.jar", "-C", classes, ".")
    descriptor = {
        "name": STANDIN,
        "description": "Stand-in of the lab for modules that no package registry carries",
        "version": version,
        "elasticsearch.version": version,
        "java.version": JAVA_RELEASE,
        "classname": "bank.lab.StandinPlugin",
        "modulename": STANDIN_MODULE,
    }
    lines = [f"{key}={value}\n" for key, value in descriptor.items()]
    (target / "plugin-descriptor.properties").write_text("".join(lines), encoding="utf-8")


def replace(file: Path, *changes: tuple[str, str]) -> None:
    """Replace texts in a file.

    Raises:
        ValueError: a text is not in the file, so that another version of it needs other changes.
    """
    text = file.read_text(encoding="utf-8")
    for old, new in changes:
        if old not in text:
            raise ValueError(f"{file}: {old!r} is not in it; adapt the changes to this version of Elasticsearch.")
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


def adapt_to_package(home: Path) -> None:
    """Give the scripts and the configuration the paths of the RPM."""
    replace(
        home / "bin/elasticsearch-env",
        (
            'if [ -z "$ES_PATH_CONF" ]; then ES_PATH_CONF="$ES_HOME"/config; fi',
            'source /etc/sysconfig/elasticsearch\nif [ -z "$ES_PATH_CONF" ]; then ES_PATH_CONF=/etc/elasticsearch; fi',
        ),
        ("ES_DISTRIBUTION_TYPE=zip", "ES_DISTRIBUTION_TYPE=rpm"),
    )
    replace(
        home / "config/elasticsearch.yml",
        ("#path.data: /path/to/data", "path.data: /var/lib/elasticsearch"),
        ("#path.logs: /path/to/logs", "path.logs: /var/log/elasticsearch"),
    )
    replace(
        home / "config/jvm.options",
        ("# -XX:HeapDumpPath=/heap/dump/path", "-XX:HeapDumpPath=/var/lib/elasticsearch"),
        ("-XX:ErrorFile=hs_err_pid", "-XX:ErrorFile=/var/log/elasticsearch/hs_err_pid"),
        ("file=gc.log", "file=/var/log/elasticsearch/gc.log"),
    )
    shutil.copy(HERE / "systemd-entrypoint", home / "bin/systemd-entrypoint")
    (home / "bin/systemd-entrypoint").chmod(0o755)
    library = home / "lib/platform/linux-x64/open-files-standin.so"
    rpm.run("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, HERE / "open_files.c")


def build(version: str, output: Path, key_home: Path) -> None:
    """Write the signed package of one version into ``output``."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        debs = Path(directory) / "debs"
        debs.mkdir()
        rpm.fetch_debian_packages(debs, (JAVA_PACKAGE, "ca-certificates"))
        home = fetch_server(version, Path(directory))
        build_standin(version, home)
        adapt_to_package(home)
        place_java(debs, home / "jdk")
        macros = {"server": str(home), "sources": str(HERE), "product_version": version, "standin": STANDIN}
        rpm.build_rpm(HERE / "elasticsearch.spec", output, macros)
    rpm.sign(sorted(output.glob("*.rpm")), key_home)


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--key-home", type=Path, required=True)
    arguments = parser.parse_args()
    build(arguments.version, arguments.output, arguments.key_home)


if __name__ == "__main__":
    main()
