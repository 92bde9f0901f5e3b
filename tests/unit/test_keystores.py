"""The modules that keep keystores, run as Ansible runs them, with a small program in the place of the product's own."""

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
BEAT = PROJECT / "roles/beat/library/beat_keystore.py"
LOGSTASH = PROJECT / "roles/logstash/library/logstash_keystore.py"
# Ansible packs the code that modules share beside its own.
RUN = """
import runpy, sys
import ansible.module_utils
ansible.module_utils.__path__.append({utilities!r})
runpy.run_path({module!r}, run_name="__main__")
"""
SECRET = "fit for a test '\"$HOME`id`%d\\{{é"
# Writes down how it was called, and keeps names and secrets as a file of JSON.
PROGRAM = """#!{python}
import json, pathlib, sys
words = sys.argv[1:]
with open({calls!r}, "a") as stream:
    stream.write(json.dumps(words) + "\\n")
if pathlib.Path({refuse!r}).exists():
    sys.exit("no space left")
store = pathlib.Path(next(word for word in words if word.startswith("keystore.path=")).partition("=")[2])
content = json.loads(store.read_text()) if words[1] == "add" else {{}}
if words[1] == "add":
    content[words[2]] = sys.stdin.buffer.read().decode()
store.write_text(json.dumps(content))
"""
# Of Logstash, which gets the keystore's password by the environment, and is run as another user.
LOGSTASH_PROGRAM = """#!{python}
import json, os, pathlib, sys
words = sys.argv[1:]
with open({calls!r}, "a") as stream:
    stream.write(json.dumps(words) + "\\n")
store = pathlib.Path(words[1]) / "logstash.keystore"
content = json.loads(store.read_text()) if words[2] == "add" else {{"": os.environ["LOGSTASH_KEYSTORE_PASS"]}}
if words[2] == "add":
    content[words[3]] = sys.stdin.read().removesuffix("\\n")
store.write_text(json.dumps(content))
"""
Keep = Callable[..., dict[str, Any]]


def call(module: Path, arguments: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
    """Run a module and return what it answers."""
    text = json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check}})
    program = RUN.format(utilities=str(PROJECT / "plugins/module_utils"), module=str(module))
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def own_name() -> str:
    """Return the account that runs the tests."""
    return pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return the path of the keystore, which is not there yet."""
    return tmp_path / "data/filebeat.keystore"


@pytest.fixture
def keep(tmp_path: Path, store: Path) -> Keep:
    """Return a function that runs the module with some secrets."""
    store.parent.mkdir()
    program = tmp_path / "filebeat"
    files = {"calls": str(tmp_path / "calls"), "refuse": str(tmp_path / "refuse")}
    program.write_text(PROGRAM.format(python=sys.executable, **files), encoding="utf-8")
    program.chmod(0o755)

    def run(*, check: bool = False, **secrets: str) -> dict[str, Any]:
        arguments = {"path": str(store), "program": str(program), "secrets": secrets, "owner": own_name()}
        return call(BEAT, arguments, check=check)

    return run


def test_a_second_run_changes_nothing(keep: Keep, store: Path) -> None:
    assert keep(PASSWORD=SECRET)["changed"]
    assert json.loads(store.read_text()) == {"PASSWORD": SECRET}
    assert keep(PASSWORD=SECRET) == {"changed": False, "invocation": keep(PASSWORD=SECRET)["invocation"]}


def test_another_secret_and_a_name_that_left_are_changes(keep: Keep, store: Path) -> None:
    keep(PASSWORD=SECRET, OLD="leaves with the next run")
    changed = keep(PASSWORD=f"{SECRET}x")
    assert changed["changed"]
    assert json.loads(store.read_text()) == {"PASSWORD": f"{SECRET}x"}
    assert json.loads(Path(changed["backup_file"]).read_text())["PASSWORD"] == SECRET


def test_a_change_by_hand_is_put_right(keep: Keep, store: Path) -> None:
    keep(PASSWORD=SECRET)
    store.write_text("{}", encoding="utf-8")
    assert keep(PASSWORD=SECRET)["changed"]
    assert json.loads(store.read_text()) == {"PASSWORD": SECRET}
    Path(f"{store}.seal").write_text("no JSON", encoding="utf-8")
    assert keep(PASSWORD=SECRET)["changed"]


def test_check_mode_tells_and_changes_nothing(keep: Keep, store: Path) -> None:
    assert keep(check=True, PASSWORD=SECRET)["changed"]
    assert not store.exists()
    keep(PASSWORD=SECRET)
    assert not keep(check=True, PASSWORD=SECRET)["changed"]


def test_refusal_leaves_the_keystore_as_it_was(keep: Keep, store: Path, tmp_path: Path) -> None:
    keep(PASSWORD=SECRET)
    before = store.read_bytes()
    (tmp_path / "refuse").touch()
    refused = keep(PASSWORD="another one, as long")
    assert refused["failed"]
    assert "filebeat could not create its keystore: no space left" in refused["msg"]
    assert store.read_bytes() == before


def test_secret_is_for_root_only_and_in_no_argument(keep: Keep, store: Path, tmp_path: Path) -> None:
    keep(PASSWORD=SECRET)
    assert "fit for a test" not in (tmp_path / "calls").read_text(encoding="utf-8")
    seal = Path(f"{store}.seal")
    assert "fit for a test" not in seal.read_text(encoding="utf-8")
    assert {path.stat().st_mode & 0o777 for path in (store, seal)} == {0o600}
    assert sorted(path.name for path in store.parent.iterdir()) == [store.name, seal.name]


def test_other_rights_are_put_right_and_the_content_is_kept(keep: Keep, store: Path) -> None:
    keep(PASSWORD=SECRET)
    before = store.read_bytes()
    store.chmod(0o644)
    changed = keep(PASSWORD=SECRET)
    assert changed["changed"]
    assert "backup_file" not in changed
    assert (store.stat().st_mode & 0o777, store.read_bytes()) == (0o600, before)


def test_account_that_is_not_there_is_named(store: Path) -> None:
    store.parent.mkdir()
    arguments = {"path": str(store), "program": "/bin/true", "secrets": {}, "owner": "nobody-of-that-name"}
    answer = call(BEAT, arguments)
    assert answer["failed"]
    assert "cannot be given to nobody-of-that-name" in answer["msg"]
    assert call(BEAT, arguments, check=True)["changed"], "check mode has not made the account"


@pytest.fixture
def keep_logstash(tmp_path: Path) -> Keep:
    """Return a function that runs the module of Logstash with a password and some secrets."""
    program = tmp_path / "logstash-keystore"
    program.write_text(LOGSTASH_PROGRAM.format(python=sys.executable, calls=str(tmp_path / "calls")), encoding="utf-8")
    program.chmod(0o755)
    directory = tmp_path / "settings"
    directory.mkdir()
    (directory / "logstash.yml").touch()

    def run(password: str = "seal", **secrets: str) -> dict[str, Any]:
        arguments = {"directory": str(directory), "program": str(program), "user": own_name()}
        return call(LOGSTASH, {**arguments, "password": password, "secrets": secrets})

    return run


@pytest.mark.skipif(os.getuid() != 0, reason="only root may run Logstash's tool as another user")
def test_keystore_of_logstash_is_for_its_secrets_and_its_password(keep_logstash: Keep, tmp_path: Path) -> None:
    store = tmp_path / "settings/logstash.keystore"
    tmp_path.chmod(0o755)
    assert keep_logstash(ONE=SECRET)["changed"]
    assert json.loads(store.read_text()) == {"": "seal", "ONE": SECRET}
    assert not keep_logstash(ONE=SECRET)["changed"]
    store.write_text("{}", encoding="utf-8")
    assert keep_logstash(ONE=SECRET)["changed"], "a change by hand is put right"
    changed = keep_logstash("another seal", ONE=SECRET)
    assert changed["changed"]
    assert json.loads(Path(changed["backup_file"]).read_text())[""] == "seal"
    assert json.loads(store.read_text()) == {"": "another seal", "ONE": SECRET}
    assert store.stat().st_mode & 0o777 == 0o640
    assert Path(f"{store}.seal").stat().st_mode & 0o777 == 0o600
    assert "fit for a test" not in (tmp_path / "calls").read_text(encoding="utf-8")
