"""What Logstash checks of its settings and pipelines before it starts."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from . import keystore

PARSER = Path(__file__).parents[1] / "mustache"
# Settings of logstash.yml, from the product's own documentation of that file.
KNOWN = frozenset(Path(__file__).with_name("settings.txt").read_text(encoding="utf-8").split())
ONLY_IN_PIPELINES = frozenset({"path.config", "config.string", "pipeline.id"})
VARIABLE = re.compile(r"\$\{(\w[\w.-]*)(?::([^}]*))?\}")
# Settings of plugins that name files which the process must be able to read.
FILES = ("ssl_certificate", "ssl_key", "ssl_certificate_authorities", "database")


class ConfigurationError(Exception):
    """The configuration would stop Logstash; the text is what it would say."""


@dataclass(frozen=True)
class Plugin:
    """One plugin of a pipeline, with the settings whose values are plain."""

    name: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Pipeline:
    """One pipeline and its plugins, in the order in which they are written."""

    name: str
    plugins: list[Plugin] = field(default_factory=list)


def resolve(text: str, secrets: dict[str, str]) -> str:
    """Replace variables by the keystore's values, else the environment's, else their defaults.

    Raises:
        ConfigurationError: There is no value.
    """

    def value(found: re.Match[str]) -> str:
        name, default = found.groups()
        for candidate in (secrets.get(name.lower()), os.environ.get(name), default):
            if candidate is not None:
                return candidate
        raise ConfigurationError(
            f"Cannot evaluate `${{{name}}}`. Replacement variable `{name}` is not defined in a Logstash secret store "
            "or as an Environment entry and there is no default value given."
        )

    return VARIABLE.sub(value, text)


def read_settings(directory: Path) -> dict[str, Any]:
    """Return the settings of logstash.yml under their flat names.

    Raises:
        ConfigurationError: The file cannot be read, or holds a setting that does not exist.
    """
    file = directory / "logstash.yml"
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"Failed to read {file}: {error}") from error
    flat: dict[str, Any] = {}

    def flatten(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                flatten(f"{prefix}{name}.", inner)
        else:
            flat[prefix.rstrip(".")] = value

    flatten("", document)
    for name in flat:
        if name not in KNOWN:
            raise ConfigurationError(f"Setting \"{name}\" doesn't exist. Please check if you haven't made a typo.")
    return flat


def plugins_of(text: str, secrets: dict[str, str]) -> list[Plugin]:
    """Return the plugins of a pipeline that parses: names followed by settings in braces."""
    text = re.sub(r'("(?:[^"\\]|\\.)*"|\'[^\']*\')|#[^\n]*', lambda found: found[1] or "", text)
    token = re.compile(r'"((?:[^"\\]|\\.)*)"|\'([^\']*)\'|(=>)|([{}\[\]])|([^\s{}\[\],"\'=]+)')
    found: list[Plugin] = []
    name, settings, depth, key, values = "", {}, 0, "", None
    for match in token.finditer(text):
        quoted = match[1] if match[1] is not None else match[2]
        word = quoted if quoted is not None else match[5]
        if match[4] == "{":
            depth += 1
            key, values = "", None
            if name:
                settings = {}
                found.append(Plugin(name, settings))
        elif match[4] == "}":
            depth, key, values = depth - 1, "", None
        elif match[4] == "[":
            values = [] if key else None
        elif match[4] == "]":
            if key and values is not None and found:
                found[-1].settings.setdefault(key, values)
            key, values = "", None
        elif match[3]:
            key = name
        elif word is not None:
            if values is not None:
                values.append(resolve(word, secrets))
            elif key and found:
                found[-1].settings.setdefault(key, resolve(word, secrets))
                key = ""
            name = word
    return [plugin for plugin in found if plugin.settings]


def parse(name: str, text: str, secrets: dict[str, str]) -> Pipeline:
    """Return a pipeline, once a parser of the language accepts it.

    Raises:
        ConfigurationError: It does not.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".conf", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        answer = subprocess.run([PARSER, "check", file.name], capture_output=True, text=True, check=False)
    if answer.returncode:
        reason = (answer.stdout + answer.stderr).strip()
        raise ConfigurationError(f"Failed to execute action Create, pipeline_id:{name}: {reason}")
    return Pipeline(name, plugins_of(text, secrets))


def read_pipelines(directory: Path, file: Path | None, string: str | None, secrets: dict[str, str]) -> list[Pipeline]:
    """Return the pipelines of pipelines.yml, or the one that the command line gives.

    Raises:
        ConfigurationError: One is missing or does not parse.
    """
    if string is not None:
        return [parse("main", string, secrets)]
    wanted = [{"pipeline.id": "main", "path.config": str(file)}] if file else None
    if wanted is None:
        try:
            wanted = yaml.safe_load((directory / "pipelines.yml").read_text(encoding="utf-8")) or []
        except (OSError, yaml.YAMLError) as error:
            raise ConfigurationError(f"Failed to read pipelines yaml file: {error}") from error
    pipelines = []
    for entry in wanted:
        if unknown := set(entry) - KNOWN - ONLY_IN_PIPELINES:
            raise ConfigurationError(f'Setting "{sorted(unknown)[0]}" doesn\'t exist in pipelines.yml.')
        paths = sorted(Path("/").glob(str(entry["path.config"]).lstrip("/")))
        if not paths:
            raise ConfigurationError(f"No config files found in path {entry['path.config']}")
        try:
            text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
        except OSError as error:
            raise ConfigurationError(f"Cannot read {error.filename}: {error.strerror}") from error
        pipelines.append(parse(str(entry["pipeline.id"]), text, secrets))
    return pipelines


def load(directory: Path, file: Path | None = None, string: str | None = None) -> tuple[dict[str, Any], list[Pipeline]]:
    """Return settings and pipelines.

    Raises:
        ConfigurationError: They would stop Logstash.
    """
    try:
        secrets = keystore.read(directory)
    except keystore.KeystoreError as error:
        raise ConfigurationError(str(error)) from error
    settings = read_settings(directory)
    resolved = {name: resolve(value, secrets) if isinstance(value, str) else value for name, value in settings.items()}
    return resolved, read_pipelines(directory, file, string, secrets)


def unreadable(pipeline: Pipeline) -> list[str]:
    """Return why plugins of a pipeline cannot start: files that this process cannot read."""
    problems = []
    for plugin in pipeline.plugins:
        for name in FILES:
            value = plugin.settings.get(name, [])
            for path in [value] if isinstance(value, str) else value:
                try:
                    Path(path).open("rb").close()
                except OSError as error:
                    problems.append(f"{plugin.name}: {name} => {path}: {error.strerror}")
    return problems
