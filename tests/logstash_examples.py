"""Run the example events of files/logstash/examples through a real Logstash and compare what comes out.

The command is: python -m tests.logstash_examples /usr/share/logstash/bin/logstash

Run it as any user but root, on any machine that has Logstash 8 or 9; it listens nowhere and stores nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
PIPELINE = PROJECT / "files" / "logstash" / "pipeline"
EXAMPLES = PROJECT / "files" / "logstash" / "examples"
START_SECONDS = 300

# The events go in whole, as one field, so that no input adds fields of its own to them.
BEFORE = """
input {
  stdin { codec => json_lines }
}
filter {
  ruby {
    code => "
      example = event.get('example')
      event.to_hash.keys.each { |key| event.remove(key) unless key == '@timestamp' }
      example['event'].each { |key, value|
        event.set(key, key == '@timestamp' ? LogStash::Timestamp.new(value) : value)
      }
      event.set('[@metadata][example]', example['name'])
    "
  }
}
"""
AFTER = """
filter {
  mutate {
    add_field => {
      "[example][name]" => "%{[@metadata][example]}"
      "[example][document_id]" => "%{[@metadata][document_id]}"
    }
  }
  if [@metadata][rejected] {
    mutate {
      add_field => { "[example][rejected]" => "%{[@metadata][rejected]}" }
    }
  }
}
output {
  stdout { codec => json_lines }
}
"""


@dataclass(frozen=True)
class Example:
    """One event, what must become of it, and why."""

    name: str
    why: str
    event: dict[str, Any]
    expected: dict[str, Any]
    # The id that the document must get, or None where Logstash makes one.
    document_id: str | None
    # The reason for which the event goes to the rejected lines, or None.
    rejected: str | None


def examples() -> list[Example]:
    """Return all examples, by name."""
    found = []
    for file in sorted(EXAMPLES.glob("*.json")):
        content = {"document_id": None, "rejected": None, **json.loads(file.read_text(encoding="utf-8"))}
        found.append(Example(name=file.stem, **content))
    return found


def configuration() -> str:
    """Return the shipped filters between an input and an output of the test's own."""
    filters = [file.read_text(encoding="utf-8") for file in sorted(PIPELINE.glob("*.conf"))]
    return "\n".join([BEFORE, *filters, AFTER])


def differences(example: Example, answer: dict[str, Any]) -> list[str]:
    """Return what is not as expected in the event that came out, a sentence each."""
    about = answer.pop("example", {})
    found = []
    if answer != example.expected:
        found.append(f"expected {json.dumps(example.expected)}, got {json.dumps(answer)}")
    if example.document_id and about.get("document_id") != example.document_id:
        found.append(f"expected the document id {example.document_id}, got {about.get('document_id')}")
    if not example.document_id and len(str(about.get("document_id", ""))) < 32:
        found.append(f"expected a document id of its own, got {about.get('document_id')}")
    if about.get("rejected") != example.rejected:
        found.append(f"expected to be rejected as {example.rejected}, got {about.get('rejected')}")
    return found


def run(logstash: Path) -> dict[str, list[str]]:
    """Send every example through ``logstash``; return the differences by name, empty where there are none.

    Raises:
        RuntimeError: Logstash did not run; the text holds its last lines.
    """
    known = {example.name: example for example in examples()}
    lines = [json.dumps({"example": {"name": e.name, "event": e.event}}) for e in known.values()]
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "examples.conf"
        file.write_text(configuration(), encoding="utf-8")
        options = ["--path.data", directory, "--log.level", "error", "--pipeline.workers", "1", "-f", str(file)]
        answer = subprocess.run(
            [str(logstash), *options],
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
    events = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]
    if answer.returncode or not events:
        raise RuntimeError(f"{logstash} ended with {answer.returncode}: {answer.stdout[-2000:]}{answer.stderr[-2000:]}")
    found = {name: ["nothing came out"] for name in known}
    for event in events:
        name = event.get("example", {}).get("name")
        if name in known:
            found[name] = differences(known[name], event)
    return found


def main() -> None:
    """Run the examples and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logstash", type=Path, help="the program, for example /usr/share/logstash/bin/logstash")
    found = run(parser.parse_args().logstash)
    for name, problems in found.items():
        print(f"{'FAILED' if problems else 'passed'}  {name}", *problems, sep="\n    ")
    failed = sum(bool(problems) for problems in found.values())
    print(f"{len(found) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
