"""Models of different histories, each trained every period: alone, and as means.

`W` is the training window, `E` all history, `H` the window with rows that weigh half every third of it, and `D` the window with up to
100,000 rows from before it. Nothing decides here: what an average is worth is
seen apart from when a model is trained. A table of docs/retraining.md is written by this benchmark, on the cache of `test_policies.py`,
whose fits it shares.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from policy_streams import EARLIER, Rows, streams
from test_policies import CACHE, fill, identity

from mlops_assets.ml.history import History

MEMBERS = {
    "W": lambda window: History(days=window),
    "E": lambda window: History(),
    "H": lambda window: History(days=window, half_life=window // 3),
    "D": lambda window: History(days=window, earlier=EARLIER),
}
MEANS = ("W", "E", "D", "W H", "W D H", "D H")


def averages(rows: Rows) -> list[float]:
    """Return the mean metric of all windows for each of `MEANS`."""
    evaluated = rows.evaluation(CACHE)
    models, days = evaluated._models, [start for start, _ in evaluated.windows]
    trained, values = days[0], []
    for day in days:
        trained = day if (day - trained).days >= rows.period else trained
        predicted = {name: models.get(history(rows.window), trained).predictions for name, history in MEMBERS.items()}
        means = (np.mean([predicted[name] for name in mean.split()], axis=0) for mean in MEANS)
        values.append([evaluated._measure(mean, evaluated._positions[day]) for mean in means])
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
    columns = [", ".join(f"`{name}`" for name in mean.split()) for mean in MEANS]
    columns = [f"mean of {column}" if "," in column else column for column in columns]
    lines = [f"| stream | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for result in results:
        digits = 1 if "absolute" in result["name"] else 4
        lines.append(f"| {result['name']} | {' | '.join(f'{value:.{digits}f}' for value in result['values'])} |")
    fill("averages", "\n".join(lines))
