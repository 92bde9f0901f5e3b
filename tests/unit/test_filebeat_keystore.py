"""The module that keeps Filebeat's keystore, run as Ansible runs it, with a small program in the place of Filebeat."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODULE = Path(__file__).parents[2] / "roles/filebeat/library/filebeat_keystore.py"
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
Keep = Callable[..., dict[str, Any]]


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
        arguments = {"path": str(store), "program": str(program), "secrets": secrets, "_ansible_check_mode": check}
        text = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
        done = subprocess.run([sys.executable, MODULE], input=text, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

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
    assert "Filebeat could not create its keystore: no space left" in refused["msg"]
    assert store.read_bytes() == before


def test_secret_is_for_root_only_and_in_no_argument(keep: Keep, store: Path, tmp_path: Path) -> None:
    keep(PASSWORD=SECRET)
    assert "fit for a test" not in (tmp_path / "calls").read_text(encoding="utf-8")
    seal = Path(f"{store}.seal")
    assert "fit for a test" not in seal.read_text(encoding="utf-8")
    assert {path.stat().st_mode & 0o777 for path in (store, seal)} == {0o600}
    assert sorted(path.name for path in store.parent.iterdir()) == [store.name, seal.name]
