"""Build the lab's RPMs of the Beats from their Go module, laid out as Elastic's packages are.

Runs on Debian as root with rpm and gnupg installed, and with libpcap's headers and a C compiler for Packetbeat.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

from lab.build import rpm
from lab.build.go import go_command
from lab.settings import LabError

HERE = Path(__file__).parent / "beats"
MODULE = "github.com/elastic/beats/v7"
# What the package calls its version, the module's version, and what the Beat adds to its own number.
SOURCES = {
    "9.0.0~dev": ("v7.0.0-alpha2.0.20241022170531-d2e6603d82fb", "dev"),
}
SUMMARIES = {
    "filebeat": "Filebeat sends log files to Logstash or directly to Elasticsearch",
    "metricbeat": "Metricbeat sends metrics of the host and its services to Logstash or Elasticsearch",
    "packetbeat": "Packetbeat reads network traffic and sends its transactions to Logstash or Elasticsearch",
}
# Beats that call C libraries.
NEEDS_C = ("packetbeat",)
# Parts of the modules' folders that no host needs.
LEFT_OUT = shutil.ignore_patterns("_meta", "test", "*.go", "*.md")


def compile_beat(beat: str, version: str, program: Path) -> Path:
    """Compile one Beat to ``program``; return the folder of its source.

    Raises:
        LabError: there is no source of that version.
        subprocess.CalledProcessError: Go failed; its messages are on standard error.
    """
    if version not in SOURCES:
        raise LabError(
            f"The lab knows no source of {beat} {version}, only of {', '.join(SOURCES)}: "
            "set platform_version_beats in the lab's inventory, or add the source to lab/build/beats.py."
        )
    module_version, qualifier = SOURCES[version]
    environment = {**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
    environment["CGO_ENABLED"] = "1" if beat in NEEDS_C else "0"
    go = go_command()
    answer = rpm.run(go, "mod", "download", "-json", f"{MODULE}@{module_version}", env=environment)
    source = Path(json.loads(answer)["Dir"])
    variables = {"qualifier": qualifier, "commit": module_version.rsplit("-", 1)[-1]}
    linker = " ".join(["-s -w", *(f"-X {MODULE}/libbeat/version.{name}={value}" for name, value in variables.items())])
    command = (go, "build", "-trimpath", "-tags", "netgo", "-ldflags", linker, "-o", program, f"./{beat}")
    # In the module's own folder its replacements of other modules hold.
    rpm.run(*command, env=environment, cwd=source)
    return source


def fill(template: Path, target: Path, beat: str) -> None:
    """Write a template with the name of the Beat."""
    text = template.read_text(encoding="utf-8").replace("@beat@", beat).replace("@summary@", SUMMARIES[beat])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def lay_out(beat: str, version: str, stage: Path) -> None:
    """Compile one Beat and place its files below ``stage`` as the package has them."""
    home = stage / "usr/share" / beat
    program = home / "bin" / beat
    source = compile_beat(beat, version, program)
    configuration = stage / "etc" / beat
    configuration.mkdir(parents=True)
    for name in (f"{beat}.yml", f"{beat}.reference.yml"):
        shutil.copy(source / beat / name, configuration)
    for name in ("LICENSE.txt", "NOTICE.txt", "README.md"):
        shutil.copy(source / name, home)
    if (source / beat / "modules.d").exists():
        shutil.copytree(source / beat / "modules.d", configuration / "modules.d")
    if beat == "filebeat":
        shutil.copytree(source / beat / "module", home / "module", ignore=LEFT_OUT)
    for folder in ("lib", "log"):
        (stage / "var" / folder / beat).mkdir(parents=True)
    fill(HERE / "beat.service", stage / f"usr/lib/systemd/system/{beat}.service", beat)
    fill(HERE / "beat.sh", stage / "usr/bin" / beat, beat)
    for path in stage.rglob("*"):
        # The module cache is read-only.
        path.chmod(0o755 if path.is_dir() or path in (program, stage / "usr/bin" / beat) else 0o644)
    (configuration / f"{beat}.yml").chmod(0o600)


def build(beat: str, version: str, output: Path, key_home: Path) -> None:
    """Write the signed package of one Beat into ``output``."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        stage = Path(directory) / "stage"
        lay_out(beat, version, stage)
        macros = {"stage": str(stage), "beat": beat, "summary": SUMMARIES[beat], "product_version": version}
        rpm.build_rpm(HERE / "beat.spec", output, macros)
    rpm.sign(sorted(output.glob("*.rpm")), key_home)


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beat", choices=SUMMARIES, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--key-home", type=Path, required=True)
    arguments = parser.parse_args()
    build(arguments.beat, arguments.version, arguments.output, arguments.key_home)


if __name__ == "__main__":
    main()
