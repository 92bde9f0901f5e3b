"""The steps of a run. Each is independent of the others, so that one that fails keeps none of them from its work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from elasticsearch_maintenance.config import Config, Snapshots
from elasticsearch_maintenance.metrics import Facts
from elasticsearch_maintenance.retention import RetentionError, expired_generations, plan, refuse_silence
from elasticsearch_maintenance.server import Server, ServerError
from elasticsearch_maintenance.snapshots import RUNNING, is_due, name_for, newest_good, superfluous

LIFECYCLE, SNAPSHOT_LIFECYCLE = "/_ilm/policy", "/_slm/policy"


@dataclass
class Run:
    """One run, what it may do, and what came of it."""

    config: Config
    server: Server
    facts: Facts
    now: datetime
    dry_run: bool = False
    snapshot_now: bool = False
    say: Callable[[str], None] = print
    errors: dict[str, str] = field(default_factory=dict)

    def told(self, done: str, text: str) -> None:
        """Say what was done, or what would be."""
        self.say(f"{'would have ' if self.dry_run else ''}{done} {text}")

    def step(self, name: str, work: Callable[[], None]) -> bool:
        """Do one step and keep its error for the end; return whether it went well."""
        try:
            work()
        except (ServerError, RetentionError) as error:
            self.errors[name] = str(error).rstrip(".") + "."
            return False
        return True

    def everything(self) -> None:
        """Do all steps."""
        if not self.step("connect", self.look):
            return
        if not self.facts.lifecycle_by_server:
            self.step("rollover", self.roll_over)
        limits = self.config.snapshots
        if limits:
            self.step("snapshot", lambda: self.take_snapshot(limits))
            self.step("prune", lambda: self.prune(limits))
        self.step("retention", self.expire)

    def look(self) -> None:
        """Find out what the server does by itself."""
        version = self.server.log_in()
        self.facts.lifecycle_by_server = self.server.has(LIFECYCLE)
        self.facts.snapshots_wanted = self.config.snapshots is not None
        self.facts.snapshots_by_server = self.server.has(SNAPSHOT_LIFECYCLE)
        taken = (
            f"are taken by {self.actor(self.facts.snapshots_by_server)}" if self.config.snapshots else "are not wanted"
        )
        expired = self.actor(self.facts.lifecycle_by_server)
        self.say(f"Elasticsearch {version}: indices are expired by {expired}, snapshots {taken}")

    @staticmethod
    def actor(by_server: bool) -> str:
        """Return who does something."""
        return "the server" if by_server else "this job"

    def roll_over(self) -> None:
        """Begin new indices behind the aliases."""
        for alias in self.config.rollovers:
            name = self.server.roll_over(alias, dry_run=self.dry_run)
            if name:
                self.told("begun", f"index {name} behind {alias}")

    def expire(self) -> None:
        """Delete the indices whose days are over, unless the server does it."""
        names: dict[str, int] = {}
        for prefix in self.config.retention:
            names.update(self.server.created(f"{prefix}*"))
        found = plan(names, self.config.retention, self.now.date())
        self.facts.future_indices = len(found.future)
        for name in found.future:
            self.say(
                f"{name} lies in the future: a host's clock is wrong, or somebody wrote a line with such a "
                "time; it stays"
            )
        if self.facts.lifecycle_by_server:
            return
        refuse_silence(found, self.now.date())
        gone = list(found.expired)
        for alias, days in self.config.rollovers.items():
            gone += expired_generations(self.server.created(f"{alias}-*"), alias, days, self.now)
        for name in gone:
            if not self.dry_run:
                self.server.delete(name)
                self.facts.deleted_total += 1
            self.told("deleted", f"index {name}")

    def take_snapshot(self, limits: Snapshots) -> None:
        """Take a snapshot if one is due, unless the server does it, and learn what there is.

        Raises:
            ServerError: there is none that can be relied on.
        """
        self.server.refuse_missing_repository(limits.repository)
        found = self.server.snapshots(limits.repository)
        problem = ""
        due = not self.facts.snapshots_by_server and (self.snapshot_now or is_due(found, limits.hour, self.now))
        running = [one.name for one in found if one.state == RUNNING]
        if due and running:
            problem = f"Snapshot {running[0]} is still being taken, so no other was begun"
        elif due and self.dry_run:
            self.told("taken", f"a snapshot to repository {limits.repository}")
        elif due:
            taken = self.server.take_snapshot(limits, name_for(self.now))
            if taken.is_good:
                self.told("taken", f"snapshot {taken.name} in {taken.seconds:.0f} s")
            else:
                problem = (
                    f"Snapshot {taken.name} ended as {taken.state} with {taken.failed_shards} failed shards "
                    f"({taken.reason or 'no reason given'}). See GET /_cluster/health and the free space "
                    f"of repository {limits.repository}; "
                    f"the next run takes another one"
                )
            found = self.server.snapshots(limits.repository)
        last = newest_good(found)
        self.facts.snapshots_good = sum(one.is_good for one in found)
        self.facts.snapshots_bad = sum(not one.is_good and one.state != RUNNING for one in found)
        self.facts.snapshot_timestamp = last.ended.timestamp() if last else 0
        self.facts.snapshot_seconds = last.seconds if last else 0
        self.facts.snapshot_bytes = self.server.snapshot_bytes(limits.repository, last.name) if last else 0
        if problem:
            raise ServerError(problem)

    def prune(self, limits: Snapshots) -> None:
        """Delete the snapshots that nobody needs any more, unless the server does it."""
        if self.facts.snapshots_by_server:
            return
        gone = superfluous(self.server.snapshots(limits.repository), limits, self.now)
        for one in gone:
            if not self.dry_run:
                self.server.delete_snapshot(limits.repository, one.name)
                self.facts.snapshots_good -= one.is_good
                self.facts.snapshots_bad -= not one.is_good
            self.told("deleted", f"snapshot {one.name} ({one.state})")
