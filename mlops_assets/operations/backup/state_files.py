"""Files of the state folder that a backup holds: all but what is copied otherwise, made anew at each start, or may be deleted."""

import stat
from collections.abc import Iterator
from pathlib import Path

_COPIED_OTHERWISE = {"postgres", "nats", "lake", "online_store"}
_MADE_AT_START = {
    *("supervisord.conf", "supervisord.pid", "nats.conf", "nats_callers.conf", "postgres_password", "stack.lock", "environment"),
    *("sessions", "servers", "metrics", "rate_limits", "run_workers", "logs"),
}
_MAY_BE_DELETED = {"staged_windows", "replay", "catalogue", "lineage", "datasets", "duckdb_spill"}
_LEFT_OUT = _COPIED_OTHERWISE | _MADE_AT_START | _MAY_BE_DELETED
_LEFT_OUT_OF_DAGSTER = {"dagster.yaml", "workspace.yaml"}

FIRST = ("spool",)
"""Copied before the databases: what leaves these folders meanwhile is in what is copied later."""

AT_ONCE = ("serving", "switches")
"""Copied as soon as the databases are held: every promotion changes the links to the bundles, and what is not recorded yet."""


def state_files(home: Path, *, only: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the files and links of the state folder: of the entries `only`, or of all entries `without` some."""
    for entry in sorted(home.iterdir()):
        if entry.name not in _LEFT_OUT and entry.name not in without and (not only or entry.name in only):
            yield from _files(entry, is_hidden_left_out=entry.name != "mlflow")


def _files(path: Path, *, is_hidden_left_out: bool) -> Iterator[Path]:
    if is_hidden_left_out and path.name.startswith("."):
        return  # files that are being written get their names when they are complete
    if path.is_symlink():
        yield path
    elif path.is_dir():
        for entry in sorted(path.iterdir()):
            if not (path.name == "dagster" and entry.name in _LEFT_OUT_OF_DAGSTER):
                yield from _files(entry, is_hidden_left_out=is_hidden_left_out)
    elif path.exists() and stat.S_ISREG(path.stat().st_mode):  # no socket; and whatever is gone by now was removed
        yield path
