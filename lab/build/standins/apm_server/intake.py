"""What APM Server asks of what it is sent: lines of Elastic's intake protocol, and OTLP in protocol buffers."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

# What an event of each kind must have.
REQUIRED = {
    "transaction": ("id", "trace_id", "type", "duration", "span_count"),
    "span": ("id", "trace_id", "parent_id", "name", "type", "duration"),
    "error": ("id",),
    "metricset": ("samples",),
}
LONGEST_SHOWN = 200


class IntakeError(Exception):
    """What was sent cannot be read at all."""


@dataclass
class Taken:
    """What of one request was accepted."""

    events: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)

    @property
    def kinds(self) -> Counter[str]:
        """Return how many events of each kind there are."""
        return Counter(event["kind"] for event in self.events)


def unpacked(body: bytes, encoding: str) -> bytes:
    """Return what was compressed.

    Raises:
        IntakeError: It cannot be read.
    """
    try:
        if encoding == "gzip":
            return gzip.decompress(body)
        return zlib.decompress(body) if encoding == "deflate" else body
    except (OSError, zlib.error, EOFError) as error:
        raise IntakeError(f"invalid compressed body: {error}") from error


def problem_with(kind: str, event: dict[str, Any]) -> str:
    """Return what an event lacks."""
    missing = [name for name in REQUIRED[kind] if event.get(name) in (None, "")]
    if kind == "span" and event.get("start") is None and event.get("timestamp") is None:
        missing.append("start")
    if kind == "error" and not (event.get("exception") or event.get("log")):
        missing.append("exception")
    return f"validation error: '{kind}' required: {missing[0]}" if missing else ""


def read_events(body: bytes, largest: int) -> Taken:
    """Return the events of a request in Elastic's protocol: metadata in the first line, one event in each other.

    Raises:
        IntakeError: There is no metadata.
    """
    lines = [line for line in body.split(b"\n") if line.strip()]
    try:
        service = json.loads(lines[0])["metadata"]["service"]
        name, agent = str(service["name"]), str(service["agent"]["name"])
    except (IndexError, ValueError, KeyError, TypeError) as error:
        raise IntakeError("validation error: 'metadata' required") from error
    taken = Taken()
    for line in lines[1:]:
        shown = line[:LONGEST_SHOWN].decode("utf-8", "replace")
        if len(line) > largest:
            taken.errors.append({"message": "event exceeded the permitted size.", "document": shown})
            continue
        try:
            ((kind, event),) = json.loads(line).items()
            reason = problem_with(kind, event) if kind in REQUIRED else f"did not recognize object type: {kind!r}"
        except (ValueError, AttributeError, TypeError):
            reason, kind, event = "invalid JSON", "", {}
        if reason:
            taken.errors.append({"message": reason, "document": shown})
        else:
            ids = {key: event.get(key) for key in ("id", "trace_id", "name", "outcome", "result") if event.get(key)}
            taken.events.append({"kind": kind, "service": name, "agent": agent, **ids})
    return taken


def fields_of(message: bytes) -> list[tuple[int, bytes]]:
    """Return the fields of a protocol buffer that hold bytes.

    Raises:
        IntakeError: It is none.
    """
    found, place = [], 0

    def number() -> int:
        nonlocal place
        total = shift = 0
        while True:
            part = message[place]
            place += 1
            total |= (part & 0x7F) << shift
            shift += 7
            if part < 0x80:
                return total

    try:
        while place < len(message):
            key = number()
            match key & 7:
                case 0:
                    number()
                case 1:
                    place += 8
                case 5:
                    place += 4
                case 2:
                    length = number()
                    if place + length > len(message):
                        raise IntakeError("proto: cannot parse invalid wire-format data")
                    found.append((key >> 3, message[place : place + length]))
                    place += length
                case _:
                    raise IntakeError("proto: cannot parse invalid wire-format data")
    except IndexError as error:
        raise IntakeError("proto: cannot parse invalid wire-format data") from error
    return found


def read_otlp(body: bytes) -> Taken:
    """Return the spans of a request in OTLP: resources hold scopes, scopes hold spans, which begin with their ids.

    Raises:
        IntakeError: It cannot be read.
    """
    taken = Taken()
    for _, resource in (entry for entry in fields_of(body) if entry[0] == 1):
        for _, scope in (entry for entry in fields_of(resource) if entry[0] == 2):
            for _, span in (entry for entry in fields_of(scope) if entry[0] == 2):
                named = dict(fields_of(span))
                event = {"kind": "otlp_span", "trace_id": named.get(1, b"").hex(), "id": named.get(2, b"").hex()}
                taken.events.append(event | {"name": named.get(5, b"").decode("utf-8", "replace")})
    return taken
