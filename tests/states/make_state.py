"""A state as this release leaves it, for later releases to open: `.venv/bin/python tests/states/make_state.py`, once for each release.

It makes a project, trains, deploys, predicts by batch and online, and monitors; then it packs the project, a backup, and answers of this
release into `tests/states/<version>.tar.xz`, which `tests/integration/test_upgrade.py` opens. Takes about three minutes.
"""

import csv
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

SOLUTION = "parcel_delay"
LAST = "2024-03-18"
"""The last week that is predicted. The file has two more, with which later releases continue."""

_SOURCE = """type: mlops_assets.RawTables
attributes:
  owners: [team:logistics]
  tables:
    parcels:
      description: Parcels sent from the depots, one row a parcel.
      files: [parcels.csv]
      key: [parcel_id]
      partitions: {column: sent_date, start: 2024-01-01, end: 2024-04-08, cadence: weekly}
      columns:
        parcel_id: {type: varchar, required: true, description: Parcel}
        sent_at: {type: timestamptz, required: true, description: "When it left the depot, UTC"}
        depot: {type: varchar, required: true, accepted: [north, south, east], description: Depot}
        weight_kg: {type: double, minimum: 0, maximum: 50, description: Weight in kilograms}
        distance_km: {type: integer, required: true, minimum: 1, description: Distance in kilometres}
        delivered_at: {type: timestamptz, description: "When it was delivered, UTC; null until then"}
        sent_date: {type: date, required: true, expression: "CAST(sent_at AS DATE)", description: Date of sent_at in UTC}
  feature_views:
    depot_history:
      description: Deliveries of a depot, as known at the start of each day.
      entity: [depot]
      time: delivered_at
      late: 2d
      features:
        depot_deliveries_7d: {count: "*", over: 7d}
        depot_late_rate_7d: {rate: delivered_at - sent_at > INTERVAL 24 HOUR, over: 7d}
"""
_SOLUTION = """type: mlops_assets.MLSolution
attributes:
  name: parcel_delay
  description: Probability that a parcel takes more than 24 hours, when it leaves the depot.
  owners: [team:logistics]
  problem: binary_classification
  partitions: {column: sent_date, start: 2024-01-01, end: 2024-04-08, cadence: weekly}
  spine: {table: parcels, key: parcel_id, prediction_time: sent_at, label: is_late, label_time: delivered_at,
    expressions: {is_late: delivered_at - sent_at > INTERVAL 24 HOUR}}
  features: [{request: [depot, weight_kg, distance_km]}, {view: depot_history}]
  training: {window: 42d, holdout: 14d, metric: roc_auc,
    estimator: {type: sklearn.ensemble.HistGradientBoostingClassifier, parameters: {max_iter: 20}}}
  gates: {floor: {roc_auc: 0.55}}
"""
_DAYS, _PARCELS = 98, 30
_SECONDS = 300


def main() -> None:
    """Make the archive."""
    target = Path(__file__).parent / f"{version('mlops-assets')}.tar.xz"
    root = Path(tempfile.mkdtemp(prefix="state.", dir="/tmp"))
    try:
        _mlops(root, "init", "shop", folder=root)
        _write_project(root / "shop")
        answers = _answers(root)
        _mlops(root, "backup", str(root / "backup"))
        (root / "answers.json").write_text(json.dumps(answers, indent=1, sort_keys=True))
    finally:
        _mlops(root, "down")
    _without_what_is_made_anew(root / "shop")
    with tarfile.open(target, "w:xz", preset=9) as archive:
        for name in ("shop", "backup", "answers.json"):
            archive.add(root / name, name, filter=_of_nobody)
    shutil.rmtree(root)
    sys.stdout.write(f"{target}: {target.stat().st_size / 1e6:.1f} MB\n")


def _write_project(project: Path) -> None:
    for folder, text in (("parcels", _SOURCE), (SOLUTION, _SOLUTION)):
        path = project / "shop" / "defs" / folder / "defs.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    chance = random.Random(7)
    rows = []
    for day in range(_DAYS):
        busy = {depot: chance.random() for depot in ("north", "south", "east")}
        for number in range(_PARCELS):
            sent = datetime(2024, 1, 1) + timedelta(days=day, hours=8, minutes=10 * number)
            depot, weight, distance = chance.choice(list(busy)), round(chance.uniform(0.2, 30), 1), chance.randint(5, 900)
            late = chance.random() < 0.05 + 0.4 * busy[depot] * (distance > 400) + 0.3 * (weight > 20)
            delivered = sent + timedelta(hours=30 if late else 20)
            times = (f"{moment:%Y-%m-%d %H:%M:%S+00}" for moment in (sent, delivered))
            rows.append([f"{day}-{number}", next(times), depot, weight, distance, next(times)])
    with (project / "shop" / "defs" / "parcels" / "parcels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["parcel_id", "sent_at", "depot", "weight_kg", "distance_km", "delivered_at"], *rows])


def _answers(root: Path) -> dict[str, Any]:
    """What this release answers, once everything has happened."""
    _mlops(root, "run", SOLUTION, "--to", LAST)
    request = json.loads(_mlops(root, "predict", SOLUTION, "--example"))
    online = json.loads(_mlops(root, "predict", SOLUTION, "--json", json.dumps(request)))
    _wait_for(
        root, f"SELECT 1 FROM information_schema.tables WHERE table_schema = '{SOLUTION}' AND table_name = 'prediction_log'"
    )
    [batch] = _sql(root, f"SELECT prediction_id FROM {SOLUTION}.predictions ORDER BY 1 LIMIT 1")
    traces = {name: json.loads(_mlops(root, "trace", name, "--json")) for name in (batch["prediction_id"],)}
    return {
        "solution": SOLUTION,
        "request": request,
        "online": online,
        "history": json.loads(_mlops(root, "history", SOLUTION, "--json")),
        "traces": traces,
        "outcomes": _sql(root, f"SELECT count(*) AS rows, sum(matured::INTEGER) AS matured FROM {SOLUTION}.outcomes"),
        "decisions": _sql(root, f"SELECT * FROM {SOLUTION}.retraining_decision ORDER BY ALL"),
    }


def _wait_for(root: Path, query: str) -> None:
    """Wait until the query has a row."""
    deadline = time.monotonic() + _SECONDS
    while not _sql(root, query):
        if time.monotonic() > deadline:
            raise TimeoutError(query)
        time.sleep(2)


def _sql(root: Path, query: str) -> list[dict[str, Any]]:
    return list(json.loads(_mlops(root, "sql", query, "--json")))


def _mlops(root: Path, *arguments: str, folder: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLOPS_", "DAGSTER"))}
    environment |= _variables(root)
    command = [str(Path(sys.executable).parent / "mlops"), *arguments]
    done = subprocess.run(command, cwd=folder or root / "shop", env=environment, capture_output=True, text=True, check=False)
    sys.stderr.write(f"mlops {' '.join(arguments)}\n")
    if done.returncode:
        raise RuntimeError(f"{done.stdout}{done.stderr}")
    return done.stdout


def _variables(root: Path) -> dict[str, str]:
    path = root / "variables.json"
    if not path.exists():
        names = [f"MLOPS_{server}_PORT" for server in ("DAGSTER", "MLFLOW", "NATS", "SERVING")]
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
        ports = {name: str(listener.getsockname()[1]) for name, listener in zip(names, sockets, strict=True)}
        for listener in sockets:
            listener.close()
        path.write_text(json.dumps({"MLOPS_HOME": str(root / "home"), "MLOPS_SENSOR_SECONDS": "5", **ports}))
    return dict(json.loads(path.read_text()))


def _without_what_is_made_anew(project: Path) -> None:
    for name in ("target", "logs", "dbt_packages"):
        shutil.rmtree(project / "dbt_project" / name, ignore_errors=True)
    for folder in list(project.rglob("__pycache__")):
        shutil.rmtree(folder)


def _of_nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    main()
