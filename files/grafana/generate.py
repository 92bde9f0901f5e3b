"""Grafana's dashboards, made from files/grafana/boards: writes dashboards/<uid>.json beside this file.

Run it after a change of a board or of an alert rule, and commit what it wrote: python -m files.grafana.generate.
"""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from files.grafana.board import Board, build
from files.grafana.boards import (
    alerts,
    backup,
    business,
    capacity,
    elasticsearch,
    golden_signals,
    haproxy,
    hosts,
    logs,
    overview,
    postgresql,
    redis,
    security,
    services,
    slo,
)

FOLDER = Path(__file__).parent / "dashboards"
MODULES = (
    overview, hosts, services, golden_signals, business, slo, postgresql, redis, haproxy, elasticsearch, logs, backup,
    alerts, security, capacity,
)  # fmt: skip
BOARDS: tuple[Board, ...] = tuple(module.BOARD for module in MODULES)


def text_of(board: Board) -> str:
    """Return the file of a dashboard."""
    return json.dumps(build(board), cls=JSONEncoder, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def files() -> dict[str, str]:
    """Return the files that the role reads, by their names."""
    return {f"{board.uid}.json": text_of(board) for board in BOARDS}


def main() -> None:
    """Write the files, and remove those of dashboards that are gone."""
    FOLDER.mkdir(exist_ok=True)
    made = files()
    for path in FOLDER.glob("*.json"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
