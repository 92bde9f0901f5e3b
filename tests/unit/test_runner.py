"""What needs hosts waits until they can be made; everything else does not; and each check is counted once."""

import sys
from pathlib import Path

import pytest

from tests import runner
from tests.runner import LONG, Check, all_checks, choose, run_all


def python(name: str, code: str, *, needs_hosts: bool = False) -> Check:
    return Check(name, name, [[sys.executable, "-c", code]], needs_hosts=needs_hosts)


@pytest.fixture(autouse=True)
def own_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LOGS", tmp_path / "logs")


def test_a_check_that_needs_hosts_waits_for_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "made"
    waits_for_the_other = (
        f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'early')!r}).exists(): time.sleep(0.05)"
    )
    checks = [
        python("prepare", f"{waits_for_the_other}\npathlib.Path({str(made)!r}).touch()"),
        python(
            "scenario", f"import pathlib, sys; sys.exit(not pathlib.Path({str(made)!r}).exists())", needs_hosts=True
        ),
        python("lint", f"import pathlib; pathlib.Path({str(tmp_path / 'early')!r}).touch()"),
    ]
    assert run_all(checks) == [True, True, True]
    names = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert (sorted(names[:2]), names[2:]) == (["lint", "prepare"], ["scenario"])


def test_a_failed_check_is_told_with_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(run_all([python("good", "pass"), python("bad", "raise SystemExit('the reason')")])) == [False, True]
    output = capsys.readouterr().out
    assert "FAILED  bad" in output
    assert "the reason" in output


def test_checks_that_need_hosts_run_without_the_preparation_when_it_was_not_asked_for() -> None:
    assert run_all([python("scenario", "pass", needs_hosts=True)]) == [True]


def test_long_checks_run_when_they_are_named_alone() -> None:
    checks = all_checks()
    names = {check.name for check in checks}
    assert set(LONG) <= names
    assert {check.name for check in choose(checks, set())} == names - set(LONG)
    assert {check.name for check in choose(checks, {"long"})} == set(LONG)
    assert [check.name for check in choose(checks, {"single_host"})] == ["single_host"]


def test_an_unknown_check_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no such check: tset; there are: .*molecule redis"):
        choose(all_checks(), {"tset"})


def test_lab_is_stopped_after_its_tests_where_nobody_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def last_command() -> list[str]:
        return next(check for check in all_checks() if check.name == "end_to_end").commands[-1]

    monkeypatch.delenv(runner.STOP_VARIABLE, raising=False)
    assert "pytest" in last_command()
    monkeypatch.setenv(runner.STOP_VARIABLE, "1")
    assert last_command()[-2:] == ["lab", "down"]
