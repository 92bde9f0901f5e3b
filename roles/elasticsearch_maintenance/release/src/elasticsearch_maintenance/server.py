"""The cluster, through the official client; a refusal becomes one sentence that says what, where and what to do."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from elastic_transport import ConnectionError as NoConnection
from elastic_transport import ConnectionTimeout, TlsError, TransportError
from elasticsearch import ApiError, Elasticsearch

from elasticsearch_maintenance.config import Config, Snapshots
from elasticsearch_maintenance.snapshots import PREFIX, RUNNING, Snapshot, parse

# What a server without a feature answers to its paths.
UNKNOWN = (400, 404, 405)
REASON_LENGTH = 500
POLL_SECONDS = 1.0
# So often in a row is a snapshot looked for that is not there.
GIVEN_UP = 3
# When another index is begun behind an alias: never after an empty one.
CONDITIONS = {"max_age": "1d", "max_primary_shard_size": "10gb", "min_docs": 1}
# Until a node that has just started has read the index of users, it lets nobody in.
REFUSED_SECONDS = 15.0


class ServerError(Exception):
    """The cluster refused or did not answer."""


def reason_of(error: ApiError) -> str:
    """Return why the server refused, down to the cause."""
    found = error.body.get("error") if isinstance(error.body, dict) else None
    if not isinstance(found, dict):
        return str(found or error.message)[:REASON_LENGTH]
    reasons = [str(found.get("reason"))]
    cause = found.get("caused_by")
    while isinstance(cause, dict):
        reasons.append(str(cause.get("reason")))
        cause = cause.get("caused_by")
    return ": ".join(dict.fromkeys(reasons))[:REASON_LENGTH]


class Server:
    """What the job asks of a cluster."""

    def __init__(self, config: Config) -> None:
        """Prepare the client; nothing is sent yet."""
        self.config = config
        self.places = ", ".join(config.nodes)
        self.client = Elasticsearch(
            config.nodes,
            ca_certs=config.ca_path,
            # Encoded here, because the client takes ASCII only.
            basic_auth=base64.b64encode(f"{config.user}:{config.password}".encode()).decode("ascii"),
            request_timeout=60,
            # Another node may answer where the first one does not.
            max_retries=len(config.nodes),
            retry_on_timeout=False,
        )

    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """Turn the client's errors into sentences.

        Raises:
            ServerError: the cluster refused, or no node answers.
        """
        try:
            yield
        except ApiError as error:
            status, user = error.meta.status, self.config.user
            if status == 401:
                raise ServerError(
                    f"{what} failed: {self.places} does not let user {user} in. Run playbooks/logging.yml, which gives "
                    f"the user and this job the same password"
                ) from error
            if status == 403:
                raise ServerError(
                    f"{what} failed: user {user} may not do that ({reason_of(error)}). Run "
                    "playbooks/logging.yml, which gives it its role"
                ) from error
            raise ServerError(f"{what} was refused by {self.places} with {status}: {reason_of(error)}") from error
        except TlsError as error:
            raise ServerError(
                f"{what} failed: the certificate of {self.places} was not accepted ({error.message}). Run "
                "playbooks/logging.yml, "
                f"which renews it"
            ) from error
        except (NoConnection, ConnectionTimeout) as error:
            raise ServerError(
                f"{what} failed: no node answers at {self.places} ({error.message}). See systemctl status "
                "elasticsearch there"
            ) from error
        except TransportError as error:
            raise ServerError(f"{what} failed at {self.places}: {error}") from error

    def log_in(self) -> str:
        """Return the version of the server, which must let the user in."""
        deadline = time.monotonic() + REFUSED_SECONDS
        with self.asking("The log-in"):
            while True:
                try:
                    return str(self.client.info()["version"]["number"])
                except ApiError as error:
                    if error.meta.status != 401 or time.monotonic() > deadline:
                        raise
                    time.sleep(POLL_SECONDS)

    def has(self, path: str) -> bool:
        """Return whether the server has a feature, which it shows by answering to one of its paths."""
        with self.asking(f"GET {path}"):
            try:
                self.client.perform_request("GET", path, headers={"accept": "application/json"})
            except ApiError as error:
                if error.meta.status in UNKNOWN:
                    return False
                raise
        return True

    def missing_privileges(self) -> list[str]:
        """Return which of the privileges that the job needs its user lacks."""
        patterns = [f"{prefix}2000.01.01" for prefix in self.config.retention]
        indices = [{"names": patterns, "privileges": ["delete_index", "view_index_metadata"]}] if patterns else []
        indices += [{"names": [alias, f"{alias}-000001"], "privileges": ["manage"]} for alias in self.config.rollovers]
        cluster = ["monitor", "read_ilm", "read_slm"]
        if self.config.snapshots:
            cluster += ["create_snapshot", "cluster:admin/snapshot/delete"]
        with self.asking("The question for the user's privileges"):
            found = self.client.security.has_privileges(cluster=cluster, index=indices)
        missing = [name for name, given in found["cluster"].items() if not given]
        for index, privileges in found["index"].items():
            missing += [f"{name} on {index}" for name, given in privileges.items() if not given]
        return missing

    def created(self, pattern: str) -> dict[str, int]:
        """Return the indices that a pattern meets, with the milliseconds since the epoch when they were made."""
        with self.asking(f"The list of indices {pattern}"):
            found = self.client.indices.get_settings(
                index=pattern, name="index.creation_date", flat_settings=True, expand_wildcards="all"
            )
        return {name: int(entry["settings"]["index.creation_date"]) for name, entry in found.items()}

    def delete(self, name: str) -> None:
        """Delete one index."""
        with self.asking(f"Deleting index {name}"):
            self.client.indices.delete(index=name)

    def roll_over(self, alias: str, *, dry_run: bool) -> str:
        """Begin another index behind an alias if the one that is written to is a day old or large; return its name.

        Raises:
            ServerError: there is no such alias.
        """
        with self.asking(f"The roll-over of {alias}"):
            if not self.client.indices.exists_alias(name=alias):
                raise ServerError(
                    f"{alias} is no alias of an index, so its documents never expire. Run "
                    "playbooks/logging.yml, which makes it one"
                )
            answer = self.client.indices.rollover(
                alias=alias,
                conditions=CONDITIONS,
                dry_run=dry_run,
            )
        return str(answer["new_index"]) if answer["rolled_over"] or (dry_run and any_met(answer["conditions"])) else ""

    def refuse_missing_repository(self, repository: str) -> None:
        """Stop if a repository is not registered.

        Raises:
            ServerError: it is not.
        """
        with self.asking(f"The look at repository {repository}"):
            try:
                self.client.snapshot.get_repository(name=repository)
            except ApiError as error:
                if error.meta.status != 404:
                    raise
                raise ServerError(
                    f"There is no snapshot repository {repository}. Set elasticsearch_snapshot_directory "
                    "and run playbooks/logging.yml"
                ) from error

    def snapshots(self, repository: str) -> list[Snapshot]:
        """Return the daily snapshots of a repository."""
        with self.asking(f"The list of snapshots in repository {repository}"):
            found = self.client.snapshot.get(repository=repository, snapshot=f"{PREFIX}*", ignore_unavailable=True)
        return [parse(entry) for entry in found["snapshots"]]

    def snapshot_bytes(self, repository: str, name: str) -> int:
        """Return the size of everything that a snapshot holds."""
        with self.asking(f"The status of snapshot {name}"):
            found = self.client.snapshot.status(repository=repository, snapshot=name)
        return int(found["snapshots"][0]["stats"]["total"]["size_in_bytes"])

    def take_snapshot(self, limits: Snapshots, name: str) -> Snapshot:
        """Take a snapshot of all indices and wait until it has ended.

        Raises:
            ServerError: it could not be begun, or lasts longer than it may.
        """
        with self.asking(f"Snapshot {name} to repository {limits.repository}"):
            # What the platform keeps inside the cluster, its roles make again; passwords stay out of the snapshot.
            self.client.snapshot.create(
                repository=limits.repository,
                snapshot=name,
                indices="*",
                include_global_state=False,
                feature_states=["none"],
                partial=False,
                wait_for_completion=False,
            )
        deadline = time.monotonic() + limits.seconds
        missing = 0
        while missing < GIVEN_UP:
            time.sleep(POLL_SECONDS)
            found = next((one for one in self.snapshots(limits.repository) if one.name == name), None)
            if found and found.state != RUNNING:
                return found
            # What the server cannot finish, it forgets.
            missing = 0 if found else missing + 1
            if time.monotonic() > deadline:
                raise ServerError(
                    f"Snapshot {name} did not end within {limits.seconds} s and goes on. "
                    f"See GET /_snapshot/{limits.repository}/{name}/_status"
                )
        raise ServerError(
            f"Snapshot {name} was begun, but the server gave it up, most often because the disk of repository "
            f"{limits.repository} is full. Free space there; the log of the elected master says more. The "
            "next run takes another"
        )

    def delete_snapshot(self, repository: str, name: str) -> None:
        """Delete one snapshot."""
        with self.asking(f"Deleting snapshot {name}"):
            self.client.snapshot.delete(repository=repository, snapshot=name)


def any_met(conditions: dict[str, Any]) -> bool:
    """Return whether the server would roll over: the least number of documents is needed beside one other condition."""
    least = [met for name, met in conditions.items() if "min_" in name]
    return all(least) and any(met for name, met in conditions.items() if "max_" in name)
