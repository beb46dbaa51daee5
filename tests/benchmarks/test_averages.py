"""Averages of models of different histories, each trained every period: alone, as mean, and with weights by what each lost lately.

`W` is the training window, `E` all history, `H` the window with rows that weigh half every third of it. Nothing decides here: what the
average is worth is seen apart from when a model is trained. A table of docs/retraining.md is written by this benchmark, on the cache of
`test_policies.py`, whose fits it shares.
"""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from policy_streams import Rows, streams
from test_policies import CACHE, fill, identity

from mlops_assets.ml.history import History

RECENT_WINDOWS = 8
SHARPNESS = 0.004
"""A member that lost a share s more on n rows weighs exp(-SHARPNESS n s) of the best."""
COLUMNS = ("`W`", "`E`", "`H`", "mean of `W`, `H`", "mean of `W`, `E`, `H`", "by recent loss of `W`, `E`, `H`")


def recent_weights(losses: np.ndarray, rows: int) -> np.ndarray:
    """Return the weight of each member from its mean loss on the last `rows` rows; equal ones without rows."""
    if not rows:
        return np.full(len(losses), 1 / len(losses))
    weights = np.exp(-SHARPNESS * rows * (losses / losses.min() - 1))
    return weights / weights.sum()


def averages(rows: Rows) -> list[float]:
    """Return the mean metric of all windows for each of `COLUMNS`."""
    evaluated, window = rows.evaluation(CACHE), rows.window
    models, days = evaluated._models, [start for start, _ in evaluated.windows]
    histories = (History(days=window), History(), History(days=window, half_life=window // 3))
    members: dict[date, tuple[np.ndarray, np.ndarray]] = {}
    trained = days[0]
    for day in days:
        trained = day if (day - trained).days >= rows.period else trained
        fits = [models.get(history, trained) for history in histories]
        members[day] = np.array([fit.predictions for fit in fits]), np.array([fit.losses for fit in fits])
    values: list[list[float | None]] = []
    for number, day in enumerate(days):
        known = [
            (members[earlier][1][:, places], len(places))
            for earlier in days[max(number - RECENT_WINDOWS, 0) : number]
            if len(
                places := evaluated._positions[earlier][models.stream.known[evaluated._positions[earlier]] <= np.datetime64(day)]
            )
        ]
        count = sum(length for _, length in known)
        losses = np.concatenate([loss for loss, _ in known], axis=1).mean(axis=1) if known else np.zeros(3)
        predicted, places = members[day][0], evaluated._positions[day]
        mixtures = [*predicted, predicted[[0, 2]].mean(axis=0), predicted.mean(axis=0)]
        mixtures.append(np.tensordot(recent_weights(losses, count), predicted, axes=1))
        values.append([evaluated._measure(mixture, places) for mixture in mixtures])
    return [float(value) for value in np.nanmean(np.array(values, dtype=float), axis=0)]


def kept(name: str) -> Path:
    """The file of the results of a stream."""
    return CACHE / "results" / f"averages-{identity(name)}.json"


@pytest.mark.parametrize("name", streams(CACHE))
def test_averages(name: str) -> None:
    """One stream, with results that are kept for the table."""
    rows = streams(CACHE)[name]()
    kept(name).parent.mkdir(parents=True, exist_ok=True)
    kept(name).write_text(json.dumps({"name": f"{rows.name}, {rows.metric}", "values": averages(rows)}))


def test_table_of_averages() -> None:
    """The table of the page, from the results of all streams that were run on the cache."""
    results = [json.loads(kept(name).read_text()) for name in streams(CACHE) if kept(name).exists()]
    lines = [f"| stream | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    for result in results:
        digits = 1 if "absolute" in result["name"] else 4
        lines.append(f"| {result['name']} | {' | '.join(f'{value:.{digits}f}' for value in result['values'])} |")
    fill("averages", "\n".join(lines))
