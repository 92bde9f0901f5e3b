"""Looks at the releases of the bank on a host, and switches between them."""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: bank_app_release
short_description: Look at the bank's releases on a host, install one, switch them, go back, remove old ones
description:
  - A release is a folder below C(<root>/releases); C(<root>/current) is the link that the service runs from.
  - The configuration and the unit that a switch brings into force wait in a folder of their own, so that a service
    which restarts by itself never runs with half of a change.
options:
  action:
    description:
      - C(look) reads only. C(install) unpacks the archive of a release beside the others and removes the archive.
      - C(activate) brings the release, the waiting configuration and the waiting unit into force.
      - C(restore) undoes an activation that was not accepted. C(accept) keeps it and removes old releases.
    type: str
    choices: [look, install, activate, restore, accept]
    default: look
  version:
    description: Release that is wanted.
    type: str
    required: true
  root:
    description: Folder of the releases and of the links to them.
    type: path
    default: /opt/bank
  config_directory:
    description: Folder of the configuration in force; C(staged) and C(previous) are below it.
    type: path
    default: /etc/bank
  unit:
    description: File of the unit in force.
    type: path
    default: /etc/systemd/system/bank.service
  companions:
    description: Files of the units in force that start and stop with it.
    type: list
    elements: path
    default: [/etc/systemd/system/bank-scheduler.service]
  archive:
    description: File on the host that C(install) unpacks.
    type: path
  checksum:
    description: SHA-256 that the archive must have. Empty means that any will do.
    type: str
    default: ""
  python:
    description: Interpreter that the release runs with.
    type: str
  forget_previous:
    description: An activation leaves no release to go back to, because it was itself a step back.
    type: bool
    default: false
  keep:
    description: Releases that C(accept) keeps besides those in use.
    type: int
    default: 2
  ready_url:
    description: URL that answers 200 when the service is ready. Empty means that nothing is asked.
    type: str
    default: ""
  certificate:
    description: Client certificate for that URL.
    type: path
  key:
    description: Key of the client certificate.
    type: path
  authority:
    description: Authority that signed the server's certificate.
    type: path
author: Bank platform team
"""

EXAMPLES = r"""
- name: Look at the releases
  bank_app_release:
    version: 1.4.0

- name: Install a release
  bank_app_release:
    action: install
    version: 1.4.0
    archive: /opt/bank/releases/bank-1.4.0-cp311-linux-x86_64.tar.gz
    python: python3.11
"""

RETURN = r"""
installed:
  description: Whether the wanted release is completely installed.
  type: bool
  returned: always
checksum:
  description: SHA-256 of the archive that the wanted release was installed from.
  type: str
  returned: always
current:
  description: Release in force, or nothing.
  type: str
  returned: always
previous:
  description: Release to go back to, or nothing.
  type: str
  returned: always
ready:
  description: Whether the service answers that it is ready.
  type: bool
  returned: always
reasons:
  description: Why the host needs a switch; empty if all that is wanted is in force.
  type: list
  returned: always
undone:
  description: Whether there was an activation to undo.
  type: bool
  returned: action is restore
restored:
  description: Release that is in force again, or nothing.
  type: str
  returned: action is restore
removed:
  description: Releases that were removed.
  type: list
  returned: action is accept
"""

MARKER = ".installed-from"


def text(path: Path) -> str:
    """Return the content of a file, or nothing if there is none."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def linked(link: Path) -> str:
    """Return the name of the release that a link leads to."""
    return link.readlink().name if link.is_symlink() else ""


def same(left: Path, right: Path) -> bool:
    """Tell whether both files exist with the same content."""
    return left.exists() and right.exists() and filecmp.cmp(left, right, shallow=False)


def point(link: Path, release: str) -> None:
    """Let a link lead to a release in one step; without a release it goes."""
    if not release:
        link.unlink(missing_ok=True)
        return
    fresh = link.with_name(link.name + ".new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path("releases") / release)
    fresh.replace(link)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for part in iter(lambda: stream.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def put(source: Path, target: Path) -> None:
    """Copy a file with owner and mode over another in one step."""
    status = source.stat()
    fresh = target.with_name(target.name + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(source.read_bytes())
    os.chown(fresh, status.st_uid, status.st_gid)
    fresh.chmod(status.st_mode & 0o777)
    fresh.replace(target)


def started_at(pid: str) -> float:
    """Return when a process was started, as seconds since the epoch."""
    # The name of the program may hold spaces; what follows its closing bracket does not.
    ticks = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


class Host:
    """The bank on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take the paths from the task."""
        options = module.params
        self.module = module
        self.version = options["version"]
        self.root = Path(options["root"])
        self.releases = self.root / "releases"
        self.current = self.root / "current"
        self.previous = self.root / "previous"
        config = Path(options["config_directory"])
        self.saved = config / "previous"
        # Exists as long as an activation is not accepted.
        self.links = self.saved / "links.json"
        self.unit = Path(options["unit"])
        self.companions = [Path(path) for path in options["companions"]]
        # What is in force, and what waits to be.
        self.files = {"configuration": (config / "bank.toml", config / "staged" / "bank.toml")}
        for unit in (self.unit, *self.companions):
            self.files[unit.name] = (unit, config / "staged" / unit.name)

    def waiting(self) -> list[str]:
        """Return what differs between wanted and in force."""
        reasons = [f"new {name}" for name, (live, staged) in self.files.items() if not same(live, staged)]
        if linked(self.current) != self.version:
            reasons.insert(0, f"release {self.version} instead of {linked(self.current) or 'none'}")
        return reasons

    def service(self, unit: Path) -> dict[str, str]:
        """Return what systemd says about a unit."""
        names = "MainPID,ActiveState,UnitFileState"
        _, out, _ = self.module.run_command(["systemctl", "show", unit.name, f"--property={names}"])
        return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)

    def ready(self) -> bool:
        """Ask the service whether it is ready."""
        options = self.module.params
        if not options["ready_url"]:
            return False
        try:
            context = ssl.create_default_context(cafile=options["authority"])
            context.load_cert_chain(options["certificate"], options["key"])
            opener = urllib.request.build_opener(
                urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({})
            )
            with opener.open(options["ready_url"], timeout=5):
                return True
        except (OSError, ValueError):
            return False

    def look(self) -> dict[str, object]:
        """Return the state of the host."""
        service = self.service(self.unit)
        reasons = self.waiting()
        active = service.get("ActiveState") == "active"
        if active:
            try:
                started = started_at(service["MainPID"])
            except OSError:
                active = False
        if active:
            # What came into force after the process was started is not in use yet: a run was cut off.
            used = {"release": self.current, **{name: live for name, (live, _) in self.files.items()}}
            late = [name for name, path in used.items() if os.path.lexists(path) and path.lstat().st_mtime > started]
            reasons += [f"{name} in force, but not in use" for name in late]
            idle = [unit.name for unit in self.companions if self.service(unit).get("ActiveState") != "active"]
            reasons += [f"{name} not running" for name in idle]
        else:
            reasons.append("not running")
        if service.get("UnitFileState") != "enabled":
            reasons.append("not started after a boot")
        marker = self.releases / self.version / MARKER
        return {
            "installed": marker.exists(),
            "checksum": text(marker),
            "current": linked(self.current),
            "previous": linked(self.previous),
            "ready": active and self.ready(),
            "reasons": reasons,
        }

    def install(self) -> bool:
        """Unpack the release beside the others, complete once it has its marker; return whether anything changed."""
        folder = self.releases / self.version
        archive, wanted = Path(self.module.params["archive"]), self.module.params["checksum"]
        if (folder / MARKER).exists():
            return False
        if self.module.check_mode:
            return True
        found = sha256(archive)
        if wanted and found != wanted:
            self.module.fail_json(
                msg=f"{archive.name} has the SHA-256 {found}, and {wanted} was asked for: find out which is right."
            )
        # An interrupted installation may have left a part.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o755)
        self.run("tar", "--extract", "--gzip", "--no-same-owner", f"--file={archive}", f"--directory={folder}")
        if not list(folder.glob(f"lib/python*/site-packages/bank-{self.version}.dist-info")):
            shutil.rmtree(folder)
            self.module.fail_json(msg=f"{archive.name} does not hold release {self.version} of the bank.")
        # Everything that the release needs is in the archive; nothing is fetched, and no installer is left on the host.
        self.run(self.module.params["python"], "-m", "venv", "--without-pip", folder)
        self.run(folder / "bin/python", "-m", "compileall", "-q", folder / "lib")
        # Programs below /opt have a label of their own, without which systemd does not start them.
        if shutil.which("selinuxenabled") and self.module.run_command(["selinuxenabled"])[0] == 0:
            self.run("restorecon", "-R", folder)
        archive.unlink()
        (folder / MARKER).write_text(f"{found}\n", encoding="utf-8")
        return True

    def run(self, *command: str | Path) -> None:
        """Run a program, and stop with its last words if it fails."""
        code, out, error = self.module.run_command([str(part) for part in command])
        if code:
            words = (error.strip() or out.strip())[-2000:]
            self.module.fail_json(
                msg=f"Release {self.version} was not installed: {command[0]} ended with {code}: {words}"
            )

    def activate(self) -> bool:
        """Bring the wanted release and the waiting files into force; return whether anything changed."""
        if not self.waiting():
            return False
        if self.module.check_mode:
            return True
        active = linked(self.current)
        # What a run that was cut off has saved is the last state that was proven, so it stays.
        if not self.links.exists():
            self.saved.mkdir(mode=0o700, exist_ok=True)
            for live, _ in self.files.values():
                if active and live.exists():
                    put(live, self.saved / live.name)
            self.links.write_text(json.dumps({"current": active, "previous": linked(self.previous)}), encoding="utf-8")
        for live, staged in self.files.values():
            put(staged, live)
        if active != self.version:
            point(self.previous, "" if self.module.params["forget_previous"] else active)
            point(self.current, self.version)
        return True

    def restore(self) -> dict[str, object]:
        """Undo an activation that was not proven; return whether there was one, and the release before it."""
        if not self.links.exists():
            return {"changed": False, "undone": False, "restored": ""}
        before = json.loads(text(self.links))
        if before["current"]:
            for live, _ in self.files.values():
                put(self.saved / live.name, live)
        point(self.current, before["current"])
        point(self.previous, before["previous"])
        shutil.rmtree(self.saved)
        return {"changed": True, "undone": True, "restored": before["current"]}

    def accept(self) -> dict[str, object]:
        """Keep the activation, and remove releases that are neither in use nor among the newest."""
        used = {linked(self.current), linked(self.previous), self.version}
        others = [path for path in self.releases.iterdir() if path.is_dir() and path.name not in used]
        complete = [path for path in others if (path / MARKER).exists()]
        complete.sort(key=lambda path: (path / MARKER).stat().st_mtime, reverse=True)
        removed = [path for path in others if path not in complete[: self.module.params["keep"]]]
        changed = bool(removed) or self.saved.exists()
        if not self.module.check_mode:
            for path in [*removed, self.saved]:
                shutil.rmtree(path, ignore_errors=path == self.saved)
        return {"changed": changed, "removed": sorted(path.name for path in removed)}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "action": {
                "type": "str",
                "choices": ["look", "install", "activate", "restore", "accept"],
                "default": "look",
            },
            "version": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/opt/bank"},
            "config_directory": {"type": "path", "default": "/etc/bank"},
            "unit": {"type": "path", "default": "/etc/systemd/system/bank.service"},
            "companions": {
                "type": "list",
                "elements": "path",
                "default": ["/etc/systemd/system/bank-scheduler.service"],
            },
            "archive": {"type": "path"},
            "checksum": {"type": "str", "default": ""},
            "python": {"type": "str"},
            "forget_previous": {"type": "bool", "default": False},
            "keep": {"type": "int", "default": 2},
            "ready_url": {"type": "str", "default": ""},
            "certificate": {"type": "path"},
            "key": {"type": "path", "no_log": False},
            "authority": {"type": "path"},
        },
        required_if=[("action", "install", ("archive", "python"))],
        supports_check_mode=True,
    )
    host = Host(module)
    action = module.params["action"]
    result: dict[str, object] = {"changed": False}
    if action == "install":
        result["changed"] = host.install()
    elif action == "activate":
        result["changed"] = host.activate()
    elif action == "restore":
        result = host.restore()
    elif action == "accept":
        result = host.accept()
    module.exit_json(**result, **host.look())


if __name__ == "__main__":
    main()
