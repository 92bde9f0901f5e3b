"""Settings of gunicorn, from the bank's own configuration: ``gunicorn --config python:bank.gunicorn_config``."""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bank import tracing
from bank.config import ConfigError, load_settings, unreadable_files

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    _settings = load_settings()
    if _problems := unreadable_files(_settings):
        raise ConfigError(_problems[0])  # noqa: TRY301
    if _missing := tracing.missing_packages(_settings):
        raise ConfigError(_missing)  # noqa: TRY301
except ConfigError as _error:
    sys.exit(f"bank: {_error}")
_server = _settings.server

# Metrics of all workers meet in files here; set before anything imports the metrics.
METRICS_DIRECTORY = Path(os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", "/run/bank/metrics"))

from bank.log import GunicornLogger, make_output  # noqa: E402

if _settings.logging.path:
    try:
        GunicornLogger.handler = make_output(_settings)
    except OSError as _error:
        sys.exit(f"bank: logging.path names {_settings.logging.path}, which cannot be written: {_error.strerror}.")
logger_class = GunicornLogger

wsgi_app = "bank.wsgi:application"
proc_name = "bank"
bind = f"[{_server.bind_address}]:{_server.port}" if ":" in _server.bind_address else (
    f"{_server.bind_address}:{_server.port}"
)  # fmt: skip
worker_class = "gthread"
workers = _server.workers
threads = _server.threads
timeout = 30
graceful_timeout = 30
keepalive = 30
control_socket_disable = True
forwarded_allow_ips = ",".join(str(address) for address in _server.trusted_proxies)
# Waiting requests beyond this are refused, so that the load balancer turns to another instance.
backlog = 512
limit_request_line = 4094
limit_request_fields = 60
accesslog = None

if _server.certificate:
    certfile = str(_server.certificate)
    keyfile = str(_server.private_key)
    ca_certs = str(_server.client_ca_certificate)
    cert_reqs = ssl.CERT_REQUIRED

    _cached: dict[tuple[int, ...], ssl.SSLContext] = {}

    def ssl_context(config: Any, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:  # noqa: ANN401
        """Return the TLS settings; gunicorn asks for each connection, and a renewed certificate is seen at once."""
        stamp = tuple(Path(name).stat().st_mtime_ns for name in (config.certfile, config.keyfile, config.ca_certs))
        context = _cached.get(stamp)
        if context is None:
            context = default()
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            _cached.clear()
            _cached[stamp] = context
        return context


def on_starting(server: Any) -> None:  # noqa: ANN401
    """Forget the metrics of an earlier run, then import the application once, so that workers share it and start fast.

    Only modules are shared: each worker makes its own application, with its own connections and threads.
    """
    del server
    try:
        METRICS_DIRECTORY.mkdir(parents=True, exist_ok=True)
        for file in METRICS_DIRECTORY.glob("*.db"):
            file.unlink()
    except OSError as error:
        sys.exit(f"bank: PROMETHEUS_MULTIPROC_DIR names {METRICS_DIRECTORY}, which cannot be used: {error.strerror}.")
    import bank.app  # noqa: F401


def child_exit(server: Any, worker: Any) -> None:  # noqa: ANN401
    """Take what a worker that ended was doing out of the gauges."""
    del server
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def worker_exit(server: Any, worker: Any) -> None:  # noqa: ANN401
    """Send the traces that a worker still holds."""
    del server, worker
    tracing.stop()
