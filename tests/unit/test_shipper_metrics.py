"""What Prometheus learns of the shippers, from answers of the shape that Beats and Logstash give."""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from lab.settings import PROJECT

SPEC = importlib.util.spec_from_file_location(
    "shipper_metrics", PROJECT / "roles/shipper_metrics/files/shipper_metrics.py"
)
assert SPEC and SPEC.loader
shippers = importlib.util.module_from_spec(SPEC)
# Dataclasses look their module up.
sys.modules["shipper_metrics"] = shippers
SPEC.loader.exec_module(shippers)

NOW = 1_800_000_000.0
BEAT: dict[str, Any] = {
    "beat": {"info": {"uptime": {"ms": 600_000}, "version": "9.0.0"}},
    "libbeat": {
        "output": {
            "events": {
                "acked": 900,
                "active": 50,
                "batches": 9,
                "dead_letter": 1,
                "dropped": 2,
                "failed": 40,
                "total": 993,
            },
            "read": {"errors": 3},
            "write": {"errors": 4},
        },
        "pipeline": {
            "events": {
                "active": 57,
                "dropped": 5,
                "failed": 0,
                "filtered": 7,
                "published": 960,
                "retry": 11,
                "total": 967,
            },
            "queue": {"acked": 903, "filled": {"pct": {"events": 0.0178}}, "max_events": 3200},
        },
    },
}
# Made after Elastic's description of the monitoring API.
LOGSTASH: dict[str, Any] = {
    "jvm": {"uptime_in_millis": 600_000},
    "pipelines": {
        "main": {
            "events": {"in": 1000, "filtered": 990, "out": 980, "duration_in_millis": 1},
            "queue": {
                "type": "persisted",
                "events_count": 20,
                "queue_size_in_bytes": 300,
                "max_queue_size_in_bytes": 1000,
            },
            "dead_letter_queue": {"queue_size_in_bytes": 64, "dropped_events": 6, "max_queue_size_in_bytes": 128},
        },
        "rejected": {"events": {"in": 6, "out": 6}, "queue": {"type": "memory", "events_count": 0}},
        ".monitoring-logstash": {"events": {}},
    },
}


def of(samples: list[Any], name: str, **labels: str) -> float:
    """Return the one sample of a name and labels."""
    (value,) = [value for found, has, value in samples if found == name and labels.items() <= has.items()]
    return value


def beat(answer: dict[str, Any], memories: Any = None, now: float = NOW) -> list[Any]:  # noqa: ANN401 - loaded by path
    """Return the samples of a Beat's answer."""
    return list(shippers.beat_samples("filebeat", answer, {} if memories is None else memories, now))


def changed(answer: dict[str, Any], **values: Any) -> dict[str, Any]:  # noqa: ANN401 - any figure
    """Return an answer with other figures; two underscores stand for a step down."""
    made = copy.deepcopy(answer)
    for path, value in values.items():
        *way, last = path.split("__")
        place = made
        for step in way:
            place = place[step]
        place[last] = value
    return made


def counted(published: int, active: int, seconds: float) -> dict[str, Any]:
    """Return the answer of a Beat that has taken in so many events, of which so many wait."""
    made = changed(BEAT, beat__info__uptime__ms=seconds * 1000)
    made["libbeat"]["pipeline"]["events"] |= {"published": published, "active": active}
    return made


def test_figures_of_a_beat() -> None:
    samples = beat(BEAT)
    assert of(samples, "shipper_uptime_seconds") == 600
    assert of(samples, "shipper_events_published_total") == 960
    assert of(samples, "shipper_events_acked_total") == 900
    assert of(samples, "shipper_events_failed_total") == 40
    assert of(samples, "shipper_events_retried_total") == 11
    assert of(samples, "shipper_events_dropped_total") == 8
    assert of(samples, "shipper_events_waiting") == 57
    assert of(samples, "shipper_output_errors_total") == 7
    assert of(samples, "shipper_queue_filled_ratio") == 0.0178
    assert {name for name, _, _ in samples} <= set(shippers.HELP)


def test_queue_on_the_disk_knows_what_it_holds() -> None:
    answer = changed(BEAT, libbeat__pipeline__queue={"filled": {"events": 500, "bytes": 1000, "pct": 0.5}})
    assert of(beat(answer), "shipper_events_waiting") == 500
    assert of(beat(answer), "shipper_queue_filled_ratio") == 0.5


def test_answer_that_lacks_a_figure_is_refused() -> None:
    for part in ("acked", "failed"):
        answer = copy.deepcopy(BEAT)
        del answer["libbeat"]["output"]["events"][part]
        with pytest.raises(shippers.ShipperError, match=f"without libbeat.output.events.{part}"):
            beat(answer)
    with pytest.raises(shippers.ShipperError, match="without"):
        beat(changed(BEAT, libbeat__pipeline__events__active=True))
    with pytest.raises(shippers.ShipperError, match="without"):
        beat(changed(BEAT, libbeat__pipeline__events__active=float("nan")))


def test_age_is_that_of_the_oldest_event_that_waits() -> None:
    memories: dict[str, Any] = {}
    ages = []
    # The output stops after 100 events, and goes on with 150 of them at 120 s.
    for seconds, published, active in ((0, 100, 0), (30, 150, 50), (60, 180, 80), (90, 180, 80), (120, 200, 50)):
        answer = counted(published, active, 600 + seconds)
        ages.append(of(beat(answer, memories, NOW + seconds), "shipper_oldest_event_age_seconds"))
    # At 120 s all of the first 150 have left, and the 151st was first seen at 60 s.
    assert ages == [0, 0, 30, 60, 60]
    assert of(beat(counted(200, 0, 750), memories, NOW + 150), "shipper_oldest_event_age_seconds") == 0
    assert len(memories["filebeat"].marks) == 1


def test_age_begins_again_with_the_shipper() -> None:
    memories: dict[str, Any] = {}
    beat(counted(100, 100, 600), memories, NOW)
    assert of(beat(counted(100, 100, 900), memories, NOW + 300), "shipper_oldest_event_age_seconds") == 300
    # More events than before, so that only the uptime tells.
    assert of(beat(counted(200, 200, 10), memories, NOW + 330), "shipper_oldest_event_age_seconds") == 0
    assert of(beat(counted(200, 200, 40), memories, NOW + 360), "shipper_oldest_event_age_seconds") == 30


def test_clock_that_is_set_back_makes_no_negative_age() -> None:
    memories: dict[str, Any] = {}
    beat(counted(100, 100, 600), memories, NOW)
    assert of(beat(counted(100, 100, 630), memories, NOW - 3600), "shipper_oldest_event_age_seconds") == 0


def test_long_outage_keeps_the_age_and_little_else() -> None:
    memories: dict[str, Any] = {}
    for step in range(2000):
        answer = counted(100 + step, 100 + step, 600 + 30 * step)
        age = of(beat(answer, memories, NOW + 30 * step), "shipper_oldest_event_age_seconds")
        assert age == 30 * step
    assert len(memories["filebeat"].marks) <= shippers.MOST_MARKS


def test_figures_of_logstash() -> None:
    memories: dict[str, Any] = {}
    samples = list(shippers.logstash_samples("logstash", LOGSTASH, memories, NOW))
    main = {"pipeline": "main"}
    assert of(samples, "shipper_uptime_seconds") == 600
    assert of(samples, "shipper_events_published_total", **main) == 1000
    assert of(samples, "shipper_events_acked_total", **main) == 980
    assert of(samples, "shipper_events_waiting", **main) == 20
    assert of(samples, "logstash_queue_bytes", **main) == 300
    assert of(samples, "logstash_queue_max_bytes", **main) == 1000
    assert of(samples, "shipper_queue_filled_ratio", **main) == 0.3
    assert of(samples, "logstash_dead_letter_queue_bytes", **main) == 64
    assert of(samples, "logstash_dead_letter_dropped_events_total", **main) == 6
    # A queue in memory has no size, and pipelines of Logstash itself are not the platform's.
    assert {labels.get("pipeline") for name, labels, _ in samples if name.startswith("logstash_")} == {"main"}
    assert {labels.get("pipeline") for _, labels, _ in samples} == {None, "main", "rejected"}
    later = changed(LOGSTASH, jvm__uptime_in_millis=720_000)
    samples = list(shippers.logstash_samples("logstash", later, memories, NOW + 120))
    assert of(samples, "shipper_oldest_event_age_seconds", **main) == 120
    assert of(samples, "shipper_oldest_event_age_seconds", pipeline="rejected") == 0


def test_events_that_logstash_kept_over_a_restart_count() -> None:
    # The queue holds 500 events of the time before; 10 have come since.
    answer = changed(LOGSTASH, pipelines__main__events={"in": 10, "out": 0})
    answer["pipelines"]["main"]["queue"]["events_count"] = 500
    memories: dict[str, Any] = {}
    list(shippers.logstash_samples("logstash", answer, memories, NOW))
    answer["jvm"]["uptime_in_millis"] += 60_000
    samples = list(shippers.logstash_samples("logstash", answer, memories, NOW + 60))
    assert of(samples, "shipper_oldest_event_age_seconds", pipeline="main") == 60


def test_logstash_of_older_releases_names_the_queue_otherwise() -> None:
    queue = {"type": "persisted", "events": 7, "capacity": {"queue_size_in_bytes": 9, "max_queue_size_in_bytes": 10}}
    samples = list(shippers.logstash_samples("l", changed(LOGSTASH, pipelines__main__queue=queue), {}, NOW))
    assert of(samples, "shipper_events_waiting", pipeline="main") == 7
    assert of(samples, "shipper_queue_filled_ratio", pipeline="main") == 0.9


def test_logstash_without_pipelines_is_refused() -> None:
    with pytest.raises(shippers.ShipperError, match="without a pipeline"):
        list(shippers.logstash_samples("logstash", changed(LOGSTASH, pipelines={}), {}, NOW))


@pytest.mark.parametrize(
    "text", ["filebeat:5066", "beat::5066", "beat:filebeat:http", "beat:filebeat:0", "beat:f:70000", "x:f:1"]
)
def test_wrong_argument_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=text.split(":")[-1]):
        shippers.Shipper.parse(text)


def test_labels_are_escaped() -> None:
    text = shippers.render([("shipper_up", {"shipper": 'a"b\\c\nd'}, 1.0)])
    assert 'shipper_up{shipper="a\\"b\\\\c\\nd"} 1\n' in text
    assert text.count("# TYPE shipper_up gauge") == 1


@contextmanager
def answering(status: int, text: str) -> Iterator[int]:
    """Answer every request with a text; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Return what runs the program and returns its result and what it wrote."""

    def run(*named: str) -> tuple[int, str]:
        output = tmp_path / "shippers.prom"
        result = shippers.main(["--output", str(output), "--memory", str(tmp_path / "memory.json"), *named])
        return result, output.read_text(encoding="utf-8")

    return run


def test_program_asks_all_and_remembers(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    with answering(200, json.dumps(BEAT)) as first, answering(200, json.dumps(LOGSTASH)) as second:
        result, text = run(f"beat:filebeat:{first}", f"logstash:logstash:{second}")
        assert result == 0
        assert 'shipper_up{shipper="filebeat"} 1\n' in text
        assert 'shipper_up{shipper="logstash"} 1\n' in text
        assert set(json.loads((tmp_path / "memory.json").read_text())) == {
            "filebeat",
            "logstash/main",
            "logstash/rejected",
        }
        # A shipper that left is forgotten.
        run(f"beat:filebeat:{first}")
        assert set(json.loads((tmp_path / "memory.json").read_text())) == {"filebeat"}
    assert not list(tmp_path.glob("*.tmp"))
    assert (tmp_path / "shippers.prom").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("status, text", [(500, "{}"), (200, "no json"), (200, "[]"), (200, "{}"), (404, "{}")])
def test_wrong_answer_is_no_answer(
    run: Callable[..., tuple[int, str]], capsys: pytest.CaptureFixture[str], status: int, text: str
) -> None:
    with answering(status, text) as port, answering(200, json.dumps(BEAT)) as other:
        result, written = run(f"beat:filebeat:{port}", f"beat:metricbeat:{other}")
    assert result == 0
    assert 'shipper_up{shipper="filebeat"} 0\n' in written
    assert 'shipper_events_waiting{shipper="filebeat"}' not in written
    assert 'shipper_up{shipper="metricbeat"} 1\n' in written
    assert capsys.readouterr().err.startswith("<3>filebeat: ")


def test_shipper_that_is_down_is_told(run: Callable[..., tuple[int, str]]) -> None:
    with answering(200, "{}") as port:
        pass
    assert 'shipper_up{shipper="filebeat"} 0\n' in run(f"beat:filebeat:{port}")[1]


def test_damaged_memory_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    assert shippers.load(path) == {}
    for text in ("", "[]", '{"filebeat": 3}', '{"filebeat": {"started": 1, "marks": [[1]]}}'):
        path.write_text(text)
        assert shippers.load(path) == {}, text


def test_folder_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(200, json.dumps(BEAT)) as port:
        arguments = [
            "--output",
            str(tmp_path / "gone/x.prom"),
            "--memory",
            str(tmp_path / "m"),
            f"beat:filebeat:{port}",
        ]
        assert shippers.main(arguments) == 1
    assert "cannot write" in capsys.readouterr().err
