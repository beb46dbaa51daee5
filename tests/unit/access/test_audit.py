"""The audit log: written before an action and after it, whole beside others, and only ever added to."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlops_assets.access.audit import audited, read_audit_log
from mlops_assets.core.errors import StackError


def act(path: Path, action: str, *, fails: bool = False, details: object = None) -> None:
    with audited(path, actor="anna", role="operator", door="a door", action=action, details=details, is_required=True):
        assert read_audit_log(path)[-1].id
        if fails:
            raise ValueError("it\ncannot")


def test_an_action_is_there_before_it_is_done_and_gets_its_outcome(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with audited(path, actor="anna", role="operator", door="a door", action="promote", details=["x"], is_required=True):
        [entry] = read_audit_log(path)
        assert (entry.actor, entry.action, entry.details, entry.outcome) == ("anna", "promote", ["x"], "began")
    [done] = read_audit_log(path)
    assert (done.id, done.at, done.outcome) == (entry.id, entry.at, "done")
    with pytest.raises(ValueError, match="it"):
        act(path, "rollback", fails=True)
    assert [entry.outcome for entry in read_audit_log(path)] == ["done", "ValueError: it"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_there_is_never_changed_and_lines_of_many_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    act(path, "first")
    before = path.read_bytes()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: act(path, f"action {number}", details={"text": "ä\n" * 2000}), range(20)))
    assert path.read_bytes().startswith(before)
    assert {entry.action for entry in read_audit_log(path)} == {"first", *(f"action {number}" for number in range(20))}


def test_a_line_of_somebody_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    act(path, "first")
    with path.open("a") as log:
        log.write("nothing happened\n")
    with pytest.raises(StackError, match="Line 3 of"):
        read_audit_log(path)


@pytest.mark.parametrize("is_required", [True, False])
def test_what_must_be_recorded_is_not_done_when_the_log_cannot_be_written(tmp_path: Path, is_required: bool) -> None:
    path = tmp_path / "audit.jsonl"
    path.symlink_to("/dev/full")
    done = []

    def try_to() -> None:
        with audited(path, actor="a", role="operator", door="d", action="x", details=None, is_required=is_required):
            done.append("it")

    if is_required:
        with pytest.raises(OSError, match="No space"):
            try_to()
    else:
        try_to()
    assert done == ([] if is_required else ["it"])


def test_a_line_that_was_cut_takes_no_other_with_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"id": "a", "at": ')
    with audited(path, actor="anna", role="operator", door="Dagster", action="launch", details={}, is_required=True):
        pass
    cut, *whole = path.read_text().splitlines()
    assert cut == '{"id": "a", "at": '
    path.write_text("".join(f"{line}\n" for line in whole))
    assert [entry.action for entry in read_audit_log(path)] == ["launch"]
