"""The last instance that serves is not drained: a stand-in for HAProxy's admin socket gives the answers."""

import importlib.util
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from lab.settings import PROJECT

MODULE = PROJECT / "roles/bank_app/library/bank_app_rotation.py"


@pytest.fixture(scope="module")
def rotation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bank_app_rotation", MODULE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that gives servers their states and returns the path of the admin socket."""
    path, states = tmp_path / "stats", {}
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                rows = [f"bank,{name},{status}" for name, status in states.items()]
                connection.sendall("\n".join(["# pxname,svname,status", "other,app9,UP", *rows, ""]).encode())

    threading.Thread(target=serve, daemon=True).start()

    def give(**wanted: str) -> str:
        states.update(wanted)
        return str(path)

    yield give
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize(
    "states",
    [
        {"app1": "UP", "app2": "UP"},
        {"app1": "UP", "app2": "DOWN", "app3": "UP 1/3"},
        {"app1": "DOWN", "app2": "DOWN"},
        {"app1": "UP"},
    ],
)
def test_a_server_is_drained_when_nobody_misses_it(
    rotation: ModuleType, haproxy: Callable[..., str], states: dict[str, str]
) -> None:
    rotation.Server(haproxy(**states), "bank", "app1").refuse_the_last()


@pytest.mark.parametrize("others", [{"app2": "DRAIN"}, {"app2": "MAINT", "app3": "DOWN"}])
def test_the_last_that_serves_stays(rotation: ModuleType, haproxy: Callable[..., str], others: dict[str, str]) -> None:
    server = rotation.Server(haproxy(app1="UP", **others), "bank", "app1")
    with pytest.raises(rotation.RotationError, match="is the only one that serves, and was not drained: app2 is"):
        server.refuse_the_last()
