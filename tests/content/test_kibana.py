"""What Kibana is given: made by its generator, whole, and about fields that the log store has."""

from __future__ import annotations

import json
import re
import uuid
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from files.kibana import generate
from tests.content.conftest import PROJECT

FOLDER = PROJECT / "files/kibana"
TEMPLATES = PROJECT / "files/elasticsearch/index-templates"
# Types of fields that an operation of Kibana can work with.
ALLOWED = {
    "terms": {"keyword", "ip", "long", "short", "integer", "boolean"},
    "date_histogram": {"date"},
    "sum": {"long", "short", "integer", "double", "float"},
    "percentile": {"long", "short", "integer", "double", "float"},
    "unique_count": {"keyword", "ip", "long"},
}
# Field names of a query in Lucene's syntax.
ASKED = re.compile(r"(?:^|[\s(])(?:_exists_:([@\w.]+)|([@\w.]+):)")
SAVED = generate.objects()


def fields(mappings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the types of a template's fields by their flat names."""
    found = {}
    for name, entry in mappings.get("properties", {}).items():
        if "properties" in entry:
            found |= fields(entry, f"{prefix}{name}.")
        else:
            found[prefix + name] = entry["type"]
    return found


def types_of(pattern: str) -> dict[str, str]:
    """Return the types of the fields of a data view, from the index template of its indices."""
    found: list[tuple[int, dict[str, str]]] = []
    for path in TEMPLATES.glob("*.json"):
        body = json.loads(path.read_text(encoding="utf-8"))
        if any(fnmatch(pattern.replace("*", "2026.11.02"), wanted) for wanted in body["index_patterns"]):
            found.append((body.get("priority", 0), fields(body["template"]["mappings"])))
    return max(found, key=lambda entry: entry[0])[1] if found else {}


def asked(query: str) -> set[str]:
    """Return the fields that a query names."""
    return {one or other for one, other in ASKED.findall(re.sub(r'"[^"]*"', '""', query))}


def pattern_of(entry: dict[str, Any]) -> str:
    """Return the indices that an object looks at."""
    (identifier,) = {named["id"] for named in entry["references"] if named["type"] == "index-pattern"}
    return next(view.pattern for view in generate.VIEWS if view.identifier == identifier)


@pytest.mark.parametrize("name", sorted(generate.files()))
def test_files_are_what_the_generator_writes(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == generate.files()[name], "python -m files.kibana.generate"


def test_names_are_unique_and_of_the_platform() -> None:
    keys = [(entry["type"], entry["id"]) for entry in SAVED]
    assert len(keys) == len(set(keys)) > 15
    assert all(entry["id"].startswith(generate.PREFIX) for entry in SAVED)
    titles = [(entry["type"], entry["attributes"]["title"]) for entry in SAVED]
    assert len(titles) == len(set(titles))
    rules = generate.rules()
    assert len({rule["id"] for rule in rules}) == len({rule["name"] for rule in rules}) == len(rules) > 3
    for rule in rules:
        # Kibana takes no others for what it seals.
        assert uuid.UUID(rule["id"]).version == 4, rule["name"]
        assert generate.TAG in rule["tags"]


def test_every_reference_resolves() -> None:
    known = {(entry["type"], entry["id"]) for entry in SAVED}
    for entry in SAVED:
        assert {(named["type"], named["id"]) for named in entry["references"]} <= known, entry["id"]
        names = [named["name"] for named in entry["references"]]
        assert len(names) == len(set(names)), entry["id"]
        if entry["type"] == "dashboard":
            panels = json.loads(entry["attributes"]["panelsJSON"])
            assert [f"{panel['panelIndex']}:{panel['panelRefName']}" for panel in panels] == names


def test_panels_do_not_overlap() -> None:
    for entry in SAVED:
        if entry["type"] == "dashboard":
            taken: set[tuple[int, int]] = set()
            for panel in json.loads(entry["attributes"]["panelsJSON"]):
                grid = panel["gridData"]
                across = range(grid["x"], grid["x"] + grid["w"])
                cells = {(x, y) for x in across for y in range(grid["y"], grid["y"] + grid["h"])}
                assert not cells & taken, (entry["id"], panel["panelIndex"])
                assert across.stop <= generate.GRID_WIDTH
                taken |= cells


@pytest.mark.parametrize("entry", [e for e in SAVED if e["type"] in ("lens", "search")], ids=lambda e: e["id"])
def test_fields_of_panels_exist_and_can_be_used_so(entry: dict[str, Any]) -> None:
    types = types_of(pattern_of(entry))
    assert types
    attributes = entry["attributes"]
    if entry["type"] == "search":
        source = json.loads(attributes["kibanaSavedObjectMeta"]["searchSourceJSON"])
        assert asked(source["query"]["query"]) | set(attributes["columns"]) <= types.keys()
        return
    state = attributes["state"]
    named = asked(state["query"]["query"])
    for column in state["datasourceStates"]["formBased"]["layers"]["layer"]["columns"].values():
        operation = column["operationType"]
        if operation == "filters":
            for part in column["params"]["filters"]:
                named |= asked(part["input"]["query"])
        elif operation != "count":
            assert types.get(column["sourceField"]) in ALLOWED[operation], column["sourceField"]
    assert named <= types.keys(), named - types.keys()


@pytest.mark.parametrize("rule", generate.rules(), ids=lambda rule: rule["name"])
def test_fields_of_rules_exist(rule: dict[str, Any]) -> None:
    (query,) = json.loads(rule["params"]["esQuery"])["query"]["bool"]["filter"]
    (pattern,) = rule["params"]["index"]
    named = asked(query["query_string"]["query"])
    assert named
    assert named <= types_of(pattern).keys()


def test_a_field_that_does_not_exist_would_be_found() -> None:
    assert asked('event.dataset:"a:b" AND (http.response.status_code:>=500 OR _exists_:log.file.path)') == {
        "event.dataset",
        "http.response.status_code",
        "log.file.path",
    }
    assert "event.datset" not in types_of("app-logs-*")
    # The template of rejected lines fits the same names, and must not be taken for it.
    assert types_of("app-logs-*")["trace.id"] == "keyword"


def test_data_views_have_the_indices_of_the_platform() -> None:
    assert {view.pattern for view in generate.VIEWS} == {"app-logs-*", "metricbeat-*", "packetbeat-*"}
    assert Path(generate.__file__).parent == FOLDER
