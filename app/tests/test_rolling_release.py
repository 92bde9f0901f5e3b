"""A rolling release has two versions on one schema: the release before this one must pass its tests on it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bank
import release_before

# What uses the database; the pages and the rest of the tests are of no use here.
FILES = ("test_ledger.py", "test_movements.py", "test_api.py")
# What these say is about that release's own migrations.
OWN_SCHEMA = ("models_and_migrations_agree", "migrating_again", "downgrade_and_upgrade")
LONGEST_SECONDS = 120


def test_release_before_passes_its_tests_on_this_schema(tmp_path):
    try:
        version, commit = release_before.find()
    except release_before.HistoryError as error:
        pytest.skip(f"no earlier release to test: {error}")
    app = release_before.unpack(commit, tmp_path / "release")
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    shutil.copy(Path(__file__).with_name("newer_schema.py"), plugins)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BANK_", "PYTEST_"))}
    environment["PYTHONPATH"] = f"{app / 'src'}{os.pathsep}{plugins}"
    environment["NEWER_SOURCE"] = str(Path(bank.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "newer_schema",
         "-k", f"not ({' or '.join(OWN_SCHEMA)})", *(f"tests/{name}" for name in FILES)],
        cwd=app, env=environment, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{version} ({commit[:7]}) fails on the new schema:\n{done.stdout}\n{done.stderr}"
    # The release really is another, and most of its tests ran.
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 100
    assert version != bank.__version__


@pytest.fixture
def history(tmp_path):
    """A repository with three versions, the last of them committed twice; returns how to change it."""
    repository = tmp_path / "repository"

    def git(*arguments):
        subprocess.run(
            ["git", "-C", repository, "-c", "user.name=x", "-c", "user.email=x@test.local", *arguments],
            check=True, capture_output=True,
        )  # fmt: skip

    def commit(version, note):
        path = repository / release_before.VERSION_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'__version__ = "{version}"\n')
        (repository / "app" / "note").write_text(note)
        git("add", ".")
        git("commit", "-qm", note)
        return repository

    repository.mkdir()
    git("init", "-q")
    return commit


def test_release_before_is_the_last_commit_of_another_version(history, tmp_path):
    for version, note in (("0.1.0", "a"), ("0.2.0", "b"), ("0.2.0", "c"), ("0.3.0", "d"), ("0.3.0", "e")):
        repository = history(version, note)
    version, commit = release_before.find(repository)
    assert version == "0.2.0"
    assert (release_before.unpack(commit, tmp_path / "old", repository) / "note").read_text() == "c"
    # A version that is not committed yet follows on what is.
    (repository / release_before.VERSION_FILE).write_text('__version__ = "0.4.0"\n')
    version, commit = release_before.find(repository)
    assert version == "0.3.0"
    assert (release_before.unpack(commit, tmp_path / "last", repository) / "note").read_text() == "e"


def test_history_that_is_missing_is_named(history, tmp_path):
    with pytest.raises(release_before.HistoryError, match=r"git rev-parse failed: .*not a git repository"):
        release_before.find(tmp_path)
    repository = history("0.1.0", "a")
    with pytest.raises(release_before.HistoryError, match=r"no other version than 0\.1\.0"):
        release_before.find(repository)
    history("0.2.0", "b")
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{repository}", shallow], check=True)
    with pytest.raises(release_before.HistoryError, match="git fetch --unshallow"):
        release_before.find(shallow)
