"""The dashboards with the data of now, as pages without Grafana: python -m reports.preview --url … --password-file ….

Asks every question of every panel through Grafana, and writes one page for each dashboard and a list of them.
"""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2
from markupsafe import Markup

from reports.command_line import parser_of, run
from reports.dashboards import Asker, Board, Panel, boards
from reports.drawing import ROW, drawn
from reports.grafana import Grafana

TEMPLATE = Path(__file__).with_name("dashboards.html.j2")


@dataclass(frozen=True)
class Entry:
    """One panel on a page; ``heading`` is the title of its row, where a row begins."""

    panel: Panel
    inside: Markup
    heading: str
    is_empty: bool
    has_error: bool

    @property
    def width(self) -> int:
        """Return its width in columns of 24."""
        return self.panel.source["gridPos"]["w"]

    @property
    def height(self) -> int:
        """Return its height in points of the screen."""
        return self.panel.source["gridPos"]["h"] * ROW


@dataclass(frozen=True)
class Page:
    """What the list of pages says of one."""

    uid: str
    title: str
    description: str
    panels: int
    empty: int
    errors: int


def entries(asker: Asker) -> list[Entry]:
    """Return the panels of a dashboard with the data of now.

    Raises:
        GrafanaError: Grafana does not answer, or not as Grafana does.
    """
    found = []
    section = ""
    for panel in asker.board.panels():
        answers = asker.answers(panel)
        found.append(
            Entry(
                panel,
                drawn(panel, answers),
                panel.section if panel.section != section else "",
                not any(answer.has_data for answer in answers.values()),
                any(answer.error for answer in answers.values()),
            )
        )
        section = panel.section
    return found


def page_of(board: Board, found: list[Entry]) -> Page:
    """Return what the list of pages says of a dashboard."""
    empty, errors = sum(entry.is_empty for entry in found), sum(entry.has_error for entry in found)
    return Page(board.uid, board.title, board.source["description"], len(found), empty, errors)


def write(grafana: Grafana, folder: Path) -> str:
    """Write a page for each dashboard and a list of them, and return a line on what is in it.

    Raises:
        GrafanaError: Grafana does not answer, or not as Grafana does; no file is written.
        OSError: a file cannot be written.
    """
    now = datetime.now(UTC)
    asked = [(board, entries(Asker(grafana, board, now))) for board in boards()]
    pages = [page_of(board, found) for board, found in asked]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    shared = {"pages": pages, "source": grafana.url, "now": now}
    folder.mkdir(parents=True, exist_ok=True)
    for board, found in asked:
        span = f"{board.span.total_seconds() / 3600:.0f} h"
        text = template.render(title=board.title, board=board, entries=found, span=span, **shared)
        (folder / f"{board.uid}.html").write_text(text, encoding="utf-8")
    index = folder / "index.html"
    index.write_text(template.render(title="Dashboards of the platform", board=None, **shared), encoding="utf-8")
    count, empty, errors = (
        sum(numbers) for numbers in zip(*((p.panels, p.empty, p.errors) for p in pages), strict=True)
    )
    return f"{index}: {len(pages)} dashboards, {count} panels, {empty} without data, {errors} with an error"


def main() -> int:
    """Write the pages of a site; return 2 and say why if they cannot be had."""
    parser = parser_of("preview", __doc__, "https://mon1.example.com:3030", Path("dashboards"))
    arguments = parser.parse_args()
    return run(arguments, Grafana, lambda server: write(server, arguments.output))


if __name__ == "__main__":
    sys.exit(main())
