"""Build the lab's RPM of Grafana from its Go module, laid out as Grafana's own package is.

Runs on Debian as root with rpm, gnupg and a C compiler installed, with the standard library only. The module carries
the server and none of its pages.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

from lab.build import rpm
from lab.build.go import go_command
from lab.build.go_release import with_files
from lab.settings import LabError

HERE = Path(__file__).parent / "grafana"
MODULE = "github.com/grafana/grafana"
# What the package calls its version: the module's version, and the server's own name for it.
SOURCES = {
    "10.0.0~preview": ("v1.9.2-0.20230609164553-81d85ce8028d", "10.0.0-preview"),
}
# Writes the code that connects the server's parts, which the module does not carry.
WIRE = "github.com/google/wire/cmd/wire@v0.7.0"
# Parts of the module's public folder that the server reads.
PUBLIC = ("emails", "img", "views", "robots.txt")


def compile_server(version: str, directory: Path) -> tuple[Path, Path]:
    """Compile the server below ``directory``; return the program and the folder of its source.

    Raises:
        LabError: there is no source of that version.
        subprocess.CalledProcessError: Go failed; its messages are on standard error.
    """
    if version not in SOURCES:
        raise LabError(
            f"The lab knows no source of Grafana {version}, only of {', '.join(SOURCES)}: "
            "set platform_version_grafana in the lab's inventory, or add the source to lab/build/grafana.py."
        )
    module_version, name = SOURCES[version]
    # The database driver is in C. What wire writes needs modules that the module's own list lacks.
    environment = {**os.environ, "CGO_ENABLED": "1", "GOWORK": "off", "GOFLAGS": "-mod=mod"}
    go = go_command()
    answer = rpm.run(go, "mod", "download", "-json", f"{MODULE}@{module_version}", env=environment)
    source = with_files(Path(json.loads(answer)["Dir"]), {}, directory / "source")
    rpm.run(go, "run", WIRE, "gen", "-tags", "oss", "./pkg/server", env=environment, cwd=source)
    program = directory / "grafana"
    linker = f"-s -w -X main.version={name}"
    rpm.run(
        go, "build", "-trimpath", "-ldflags", linker, "-o", program, "./pkg/cmd/grafana", env=environment, cwd=source
    )
    return program, source


def lay_out(version: str, directory: Path, stage: Path) -> None:
    """Compile the server and place its files below ``stage`` as the package has them."""
    program, source = compile_server(version, directory)
    home, configuration = stage / "usr/share/grafana", stage / "etc/grafana"
    for folder in (home / "bin", home / "conf", home / "public/build", configuration, stage / "usr/sbin"):
        folder.mkdir(parents=True)
    shutil.copy(program, home / "bin/grafana")
    shutil.copy(source / "conf/defaults.ini", home / "conf")
    shutil.copytree(source / "conf/provisioning", configuration / "provisioning")
    shutil.copy(source / "conf/sample.ini", configuration / "grafana.ini")
    shutil.copy(source / "conf/ldap.toml", configuration)
    for name in ("LICENSE", "NOTICE.md", "README.md"):
        shutil.copy(source / name, home)
    for name in PUBLIC:
        origin = source / "public" / name
        if origin.is_dir():
            shutil.copytree(origin, home / "public" / name)
        else:
            shutil.copy(origin, home / "public")
    plugins = source / "public/app/plugins"
    for description in plugins.rglob("plugin.json"):
        target = home / "public/app/plugins" / description.relative_to(plugins)
        target.parent.mkdir(parents=True)
        shutil.copy(description, target)
    shutil.copy(HERE / "grafana-server", stage / "usr/sbin")
    for path in stage.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.parent.name in ("bin", "sbin") else 0o644)


def build(version: str, output: Path, key_home: Path) -> None:
    """Write the signed package of one version into ``output``."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        stage = Path(directory) / "stage"
        lay_out(version, Path(directory), stage)
        macros = {"stage": str(stage), "sources": str(HERE), "product_version": version}
        rpm.build_rpm(HERE / "grafana.spec", output, macros)
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
