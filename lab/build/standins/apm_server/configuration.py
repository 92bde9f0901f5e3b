"""Settings and keystore as every program of the Beats family reads them, and what of them stops APM Server."""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

VARIABLE = re.compile(r"\$\{([^}:]+)(?::([^}]*))?\}")
HOME = "/usr/share/apm-server"
PLACES = {"path.config": "/etc/apm-server", "path.data": "/var/lib/apm-server", "path.logs": "/var/log/apm-server"}
# Kind of value that these settings take; APM Server does not look at settings that it does not know.
KINDS: dict[str, tuple[type, ...]] = {
    "apm-server.host": (str,),
    "apm-server.max_event_size": (int,),
    "apm-server.max_connections": (int,),
    "apm-server.rum.enabled": (bool,),
    "apm-server.ssl.enabled": (bool,),
    "apm-server.auth.secret_token": (str,),
    "apm-server.auth.anonymous.enabled": (bool,),
    "apm-server.auth.anonymous.rate_limit.event_limit": (int,),
    "apm-server.auth.anonymous.rate_limit.ip_limit": (int,),
    "http.enabled": (bool,),
    "http.port": (int,),
}
GO_KINDS = {str: "string", int: "int", bool: "bool", float: "float"}


class ConfigurationError(Exception):
    """The configuration would stop APM Server; the text is what it would say."""


@dataclass
class Options:
    """What the command line gives: the file of the settings, the folders, and settings that win."""

    file: Path = Path("apm-server.yml")
    settings: dict[str, str] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Return one of the program's folders."""
        return Path(self.settings.get(name, PLACES[name]))


def flatten(value: object, prefix: str = "") -> dict[str, Any]:
    """Return nested settings under their flat names."""
    if isinstance(value, dict) and value:
        return {
            key: found for name, inner in value.items() for key, found in flatten(inner, f"{prefix}{name}.").items()
        }
    return {prefix.rstrip("."): value}


def keystore_file(options: Options, values: dict[str, Any]) -> Path:
    """Return where the keystore is."""
    given = options.settings.get("keystore.path") or values.get("keystore.path")
    return Path(given or options.path("path.data") / "apm-server.keystore")


def read_keystore(file: Path) -> dict[str, str]:
    """Return the secrets by name; none if there is no keystore."""
    if not file.exists():
        return {}
    try:
        return dict(json.loads(base64.b64decode(file.read_bytes())))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"could not initialize the keystore: {error}") from error


def write_keystore(file: Path, secrets: dict[str, str]) -> None:
    """Replace the keystore."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(base64.b64encode(json.dumps(secrets).encode()))


def read(options: Options) -> dict[str, Any]:
    """Return the settings by their flat names, as they are written.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    file = options.file if options.file.is_absolute() else options.path("path.config") / options.file
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"error loading config file: {error}") from error
    return {**flatten(document), **options.settings}


def resolved(values: dict[str, Any], secrets: dict[str, str], source: Path) -> dict[str, Any]:
    """Return the settings with the keystore's and the environment's values in place of their names."""

    def value(name: str, text: str) -> str:
        def one(found: re.Match[str]) -> str:
            for candidate in (secrets.get(found[1]), os.environ.get(found[1]), found[2]):
                if candidate is not None:
                    return candidate
            raise ConfigurationError(
                f"error unpacking config data: missing field accessing '{name}' (source:'{source}')"
            )

        return VARIABLE.sub(one, text)

    return {name: value(name, entry) if isinstance(entry, str) else entry for name, entry in values.items()}


def load(options: Options) -> dict[str, Any]:
    """Return the settings that the program runs with.

    Raises:
        ConfigurationError: They would stop it.
    """
    written = read(options)
    secrets = read_keystore(keystore_file(options, written))
    values = resolved(written, secrets, options.file)
    for name, kinds in KINDS.items():
        if name in values and (
            not isinstance(values[name], kinds) or (isinstance(values[name], bool) and bool not in kinds)
        ):
            found, wanted = GO_KINDS.get(type(values[name]), "object"), GO_KINDS[kinds[0]]
            raise ConfigurationError(
                f"error unpacking config data: required '{wanted}', but found '{found}' in field '{name}'"
            )
    outputs = {name.split(".")[1] for name in values if name.startswith("output.")}
    if len(outputs) != 1:
        raise ConfigurationError(
            "error initializing publisher: no outputs are defined"
            if not outputs
            else "error unpacking config data: more than one namespace configured accessing 'output'"
        )
    if values.get("apm-server.ssl.enabled"):
        certificate, key = values.get("apm-server.ssl.certificate"), values.get("apm-server.ssl.key")
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(str(certificate), str(key))
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"failed to load the certificate {certificate} with {key}: {error}") from error
    return values
