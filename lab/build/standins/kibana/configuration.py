"""What Kibana checks of its settings before it starts."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import keystore

# Settings of kibana.yml, from the product's own documentation; a name that ends with a star stands for all below it.
KNOWN = Path(__file__).with_name("settings.txt").read_text(encoding="utf-8").split()
EXACT = frozenset(name for name in KNOWN if not name.endswith("*"))
BELOW = tuple(name.rstrip("*") for name in KNOWN if name.endswith("*"))
ENCRYPTION_KEYS = ("xpack.security", "xpack.encryptedSavedObjects", "xpack.reporting")
SHORTEST_KEY = 32
UNKNOWN_CODE, INVALID_CODE = 64, 78
DURATION = re.compile(r"[1-9]\d*(ms|s|m|h|d|w|M|Y)?")
DURATIONS = ("xpack.security.session.idleTimeout", "xpack.security.session.lifespan")
FILES = ("server.ssl.certificate", "server.ssl.key", "elasticsearch.ssl.certificateAuthorities")


class ConfigurationError(Exception):
    """The configuration would stop Kibana; the text is what it would say, the code what it would exit with."""

    def __init__(self, text: str, code: int = INVALID_CODE) -> None:
        """Remember both."""
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Settings:
    """Settings under their flat names, those of the keystore included."""

    values: dict[str, Any]

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        """Return one setting."""
        return self.values.get(name, default)

    def listing(self, name: str) -> list[str]:
        """Return a setting that may be one value or several."""
        value = self.values.get(name, [])
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def flatten(value: object, prefix: str = "") -> dict[str, Any]:
    """Return nested settings under their flat names."""
    if isinstance(value, dict) and value:
        return {
            key: found for name, inner in value.items() for key, found in flatten(inner, f"{prefix}{name}.").items()
        }
    return {prefix.rstrip("."): value}


def invalid(name: str, reason: str) -> ConfigurationError:
    """Return the error about the value of one setting, in Kibana's words."""
    prefix, _, last = name.rpartition(".")
    return ConfigurationError(f"[config validation of [{prefix}].{last}]: {reason}")


def check_names(values: dict[str, Any]) -> None:
    """Refuse settings that do not exist."""
    unknown = sorted(name for name in values if name not in EXACT and not name.startswith(BELOW))
    if unknown:
        listed = ", ".join(f'"{name}"' for name in unknown)
        raise ConfigurationError(
            f"Unknown configuration key(s): {listed}. Check for spelling errors and ensure that expected plugins are "
            "installed.",
            UNKNOWN_CODE,
        )


def check_values(values: dict[str, Any]) -> None:
    """Refuse values that Kibana refuses."""
    for prefix in ENCRYPTION_KEYS:
        name = f"{prefix}.encryptionKey"
        key = values.get(name)
        if key is not None and not isinstance(key, str):
            raise invalid(name, f"expected value of type [string] but got [{type(key).__name__}]")
        if key is not None and len(key) < SHORTEST_KEY:
            raise invalid(name, f"value has length [{len(key)}] but it must have a minimum length of [{SHORTEST_KEY}].")
    port = values.get("server.port", 5601)
    if not isinstance(port, int) or isinstance(port, bool):
        raise invalid("server.port", f"expected value of type [number] but got [{type(port).__name__}]")
    for name in DURATIONS:
        if name in values and not DURATION.fullmatch(str(values[name])):
            raise invalid(name, f"Failed to parse value as time value: {values[name]}")
    if values.get("elasticsearch.username") == "elastic":
        raise invalid(
            "elasticsearch.username",
            'value of "elastic" is forbidden. This is a superuser account that cannot write to system indices that '
            "Kibana needs to function. Use a service account token instead.",
        )
    if values.get("elasticsearch.username") and values.get("elasticsearch.serviceAccountToken"):
        raise invalid(
            "elasticsearch.serviceAccountToken", 'serviceAccountToken cannot be specified when "username" is also set.'
        )
    url = values.get("server.publicBaseUrl")
    if url is not None and not re.fullmatch(r"https?://[^/]+(/.*[^/])?", str(url)):
        raise invalid("server.publicBaseUrl", "expected URI with scheme [http|https].")


def check_files(settings: Settings) -> None:
    """Refuse files that cannot be read, and a key that is not the certificate's."""
    for name in FILES:
        for path in settings.listing(name):
            try:
                Path(path).open("rb").close()
            except FileNotFoundError:
                raise ConfigurationError(f"ENOENT: no such file or directory, open '{path}'", 1) from None
            except OSError:
                raise ConfigurationError(f"EACCES: permission denied, open '{path}'", 1) from None
    if settings.get("server.ssl.enabled"):
        certificate, key = settings.get("server.ssl.certificate"), settings.get("server.ssl.key")
        if not certificate or not key:
            raise invalid("server.ssl", "must specify [certificate] and [key] -- or [keystore] -- when ssl is enabled")
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"{certificate} and {key}: {error}", 1) from error


def load() -> Settings:
    """Return the settings of kibana.yml and of the keystore, which wins.

    Raises:
        ConfigurationError: They would stop Kibana.
    """
    file = keystore.directory() / "kibana.yml"
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        values = flatten(document) | keystore.read(keystore.directory())
    except (OSError, yaml.YAMLError, keystore.KeystoreError) as error:
        raise ConfigurationError(f"{file}: {error}", 1) from error
    values.pop("", None)
    check_names(values)
    check_values(values)
    settings = Settings(values)
    check_files(settings)
    return settings
