"""The Logstash pipeline: it parses, every plugin has a name, and its examples are whole.

What the filters do is shown by a real Logstash only: python -m tests.logstash_examples runs the examples through one.
"""

import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from lab.build import releases
from lab.mirror import build_release
from tests import logstash_examples
from tests.logstash_examples import EXAMPLES, PIPELINE, Example, examples

FILES = sorted(PIPELINE.glob("*.conf"))
LOG_TYPES = {"transaction", "error", "user_behavior", "performance", "fraud", "audit", "system"}


@pytest.fixture(scope="session")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a parser of Logstash's language."""
    release = releases.logstash_config()
    directory, _ = build_release(release)
    target = tmp_path_factory.mktemp("parser")
    with tarfile.open(next(directory.rglob("*.tar.gz"))) as archive:
        archive.extractall(target)
    return target / release.directory / "mustache"


def parse(parser: Path, command: str, file: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the parser for one file."""
    return subprocess.run([str(parser), command, str(file)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_pipeline_parses_and_its_plugins_have_names(parser: Path, file: Path) -> None:
    for command in ("check", "lint"):
        answer = parse(parser, command, file)
        assert answer.returncode == 0, answer.stdout + answer.stderr


def test_parser_refuses_what_logstash_refuses(parser: Path, tmp_path: Path) -> None:
    for name, text in {
        "open brace": 'filter { mutate { id => "a" }\n',
        "comma between plugins": 'filter { mutate { id => "a" }, uuid { target => "b" } }\n',
        "comment of another language": 'filter {\n  // no comment here\n  mutate { id => "a" }\n}\n',
    }.items():
        file = tmp_path / "broken.conf"
        file.write_text(text, encoding="utf-8")
        assert parse(parser, "check", file).returncode != 0, name


def test_harness_of_the_examples_parses(parser: Path, tmp_path: Path) -> None:
    file = tmp_path / "examples.conf"
    file.write_text(logstash_examples.configuration(), encoding="utf-8")
    answer = parse(parser, "check", file)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_plugin_names_are_unique() -> None:
    names = re.findall(
        r'^\s*id => "([^"]+)"', "".join(file.read_text(encoding="utf-8") for file in FILES), re.MULTILINE
    )
    assert len(names) > 20
    assert len(names) == len(set(names))


def test_every_log_type_has_an_example() -> None:
    assert {example.expected["labels"]["log_type"] for example in examples()} == LOG_TYPES
    assert len(list(EXAMPLES.iterdir())) == len(examples())
    classify = (PIPELINE / "50-classify.conf").read_text(encoding="utf-8")
    assert set(re.findall(r'"\[labels\]\[log_type\]" => "(\w+)"', classify)) == LOG_TYPES


def substitutions() -> list[tuple[str, re.Pattern[str], str]]:
    """Return field, pattern and replacement of every substitution, which Python reads as Ruby does."""
    text = (PIPELINE / "30-redact.conf").read_text(encoding="utf-8")
    found = re.findall(r'^\s+"([^"]+)", "([^"]+)", "([^"]+)"', text, re.MULTILINE)
    assert len(found) == text.count('", "') // 2
    # Python wants flags for a whole pattern at its start only, where all of these have them.
    return [(field, re.compile(pattern), replacement) for field, pattern, replacement in found]


def text_at(event: dict[str, object], field: str) -> str | None:
    """Return the text of a field that is written as Logstash writes it."""
    value: object = event
    for name in re.findall(r"[^\[\]]+", field):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


@pytest.mark.parametrize("example", [e for e in examples() if e.name != "json_in_message"], ids=lambda e: e.name)
def test_redaction_gives_the_expected_text(example: Example) -> None:
    for field in {field for field, _, _ in substitutions()}:
        text = text_at(example.event, field)
        for name, pattern, replacement in substitutions():
            if name == field and text is not None:
                text = pattern.sub(replacement, text)
        assert text == text_at(example.expected, field)


def test_every_pattern_has_an_example() -> None:
    # The same pattern guards several fields; one example is enough for each.
    fields = {field for field, _, _ in substitutions()}
    texts = [text for example in examples() for field in fields if (text := text_at(example.event, field))]
    for _, pattern, _ in substitutions():
        assert any(pattern.search(text) for text in texts), pattern.pattern


def test_differences_are_told() -> None:
    (example,) = [example for example in examples() if example.name == "transaction"]
    good = {**example.expected, "example": {"document_id": example.document_id}}
    assert logstash_examples.differences(example, dict(good)) == []
    assert logstash_examples.differences(example, {**good, "message": "other"})
    assert logstash_examples.differences(example, {**good, "example": {"document_id": "other"}})
    rejected = {"document_id": example.document_id, "rejected": "not JSON"}
    assert logstash_examples.differences(example, {**good, "example": rejected})
