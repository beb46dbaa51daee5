"""Predictions are history: what was predicted stays, whoever scores a row again with whatever model or values."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import inprocess
import pytest
from clinic_chain import Clinic, Registry
from registry_database import new_registry_url

from mlops_assets.clients.signatures import Signer
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.operations.rescoring import outdated_partitions
from mlops_assets.predictions.outcomes import build_outcomes
from mlops_assets.predictions.predictions import build_predictions

pytestmark = pytest.mark.long

TRAINED, LATER = "2020-02-10", "2020-02-20"
FIRST, LAST = "2020-02-12", "2020-02-14"
ROWS = 150
"""Fifty visits a day."""


class Scoring(Clinic):
    """The clinic with its predictions and outcomes."""

    def score(self, first: str, last: str, *stages: str, **configuration: Any) -> dg.ExecuteInProcessResult:
        result = inprocess.materialize(
            [build_predictions(self.inputs), build_outcomes(self.inputs)],
            [f"{self.name}/{stage}" for stage in stages or ("predictions", "outcomes")],
            first=first,
            last=last,
            resources={"lake": self.lake, "registry": self.registry, "settings": self.settings},
            instance=self.instance,
            run_config={"ops": {f"{self.name}__predictions": {"config": configuration}}} if configuration else None,
        )
        assert result.success, inprocess.failures(result)
        assert inprocess.failed_checks(result) == set()
        return result

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self.query(query).to_pylist()]

    def generations(self) -> list[tuple[Any, ...]]:
        """Generation, version, whether it counts, whether the version was trained on it, reason, and rows of each of the three days."""
        return self.rows(
            "SELECT _generation, model_version, _counted, _trained_on, _scored_because, count(*) FROM {name}.predictions "
            f"WHERE day BETWEEN DATE '{FIRST}' AND DATE '{LAST}' GROUP BY ALL ORDER BY ALL"
        )

    def reported(self) -> list[tuple[Any, ...]]:
        """Versions whose predictions `all_predictions` and outcomes have, with the sum of the scores."""
        tables = ("all_predictions", "outcomes")
        queries = [
            f"SELECT '{table}' AS name, model_version, count(*), round(sum(score), 6) FROM {{name}}.{table} GROUP BY ALL"
            for table in tables
        ]
        return self.rows(f"{' UNION ALL '.join(queries)} ORDER BY ALL")


@pytest.fixture(scope="module")
def scoring(make_lake: Callable[[], Lake], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scoring]:
    """Two versions, the later one the champion; the first one predicted three days before the later was trained on them."""
    home = tmp_path_factory.mktemp("scoring")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        registry = Registry(new_registry_url(home), "", Signer(home / "signing_key"))
        clinic = Scoring("binary_classification", make_lake(), registry, Settings(home=home / "home"))
        clinic.train(TRAINED)
        clinic.score(FIRST, LAST, reason="as it came")
        clinic.train(LATER)
        yield clinic


def test_a_later_version_does_not_take_the_place_of_the_one_that_predicted(scoring: Scoring) -> None:
    assert scoring.generations() == [(1, 1, True, False, "as it came", ROWS)]
    reported = scoring.reported()
    assert [row[:3] for row in reported] == [("all_predictions", 1, ROWS), ("outcomes", 1, ROWS)]

    # It was trained on these rows: marked, and not counted even when somebody insists.
    for supersede in (False, True):
        scoring.score(FIRST, LAST, reason="to see", supersede=supersede)
        assert scoring.generations() == [
            (1, 1, True, False, "as it came", ROWS),
            (2, 2, False, True, "to see", ROWS),
        ]
        assert scoring.reported() == reported


def test_a_day_that_the_version_was_trained_on_is_predicted_and_not_counted(scoring: Scoring) -> None:
    reported = scoring.reported()
    scoring.score("2020-02-18", "2020-02-18")
    counts = "SELECT _counted, _trained_on, count(*) FROM {name}.predictions WHERE day = DATE '2020-02-18' GROUP BY ALL"
    assert scoring.rows(counts) == [(False, True, 50)]
    assert scoring.reported() == reported
    # What it has not seen counts.
    scoring.score("2020-02-20", "2020-02-20")
    assert scoring.rows(counts.replace("02-18", "02-20")) == [(True, False, 50)]


def test_corrected_values_count_when_a_person_says_so_and_the_former_stay(scoring: Scoring) -> None:
    name = scoring.name
    identifiers = scoring.rows("SELECT prediction_id, score FROM {name}.predictions WHERE _counted AND day = DATE '2020-02-20'")
    with scoring.lake.connect(read_only=False) as connection:
        assert outdated_partitions(connection, scoring.inputs) == []
        # Written anew as they were, and ten of them corrected.
        connection.execute(f"UPDATE lake.{name}.visits SET age = age WHERE day = DATE '2020-02-20'")
        assert outdated_partitions(connection, scoring.inputs) == []
        connection.execute(f"UPDATE lake.{name}.visits SET age = age + 5 WHERE id < 'v2510' AND day = DATE '2020-02-20'")
        [outdated] = outdated_partitions(connection, scoring.inputs)
    assert outdated.isoformat() == "2020-02-20"

    for _ in range(2):
        scoring.score("2020-02-20", "2020-02-20", reason="late ages")
    of_day = (
        "SELECT _generation, _counted, _scored_because, count(*) FROM {name}.predictions "
        "WHERE day = DATE '2020-02-20' GROUP BY ALL ORDER BY ALL"
    )
    assert scoring.rows(of_day) == [(1, True, None, 50), (2, False, "late ages", 10)]
    with scoring.lake.connect(read_only=True) as connection:
        assert outdated_partitions(connection, scoring.inputs) == []

    for _ in range(2):
        scoring.score("2020-02-20", "2020-02-20", reason="the source says so", supersede=True)
    assert scoring.rows(of_day) == [
        (1, False, None, 10),
        (1, True, None, 40),
        (2, False, "late ages", 10),
        (3, True, "the source says so", 10),
    ]
    # Every row is reported once, each prediction is found by its id, and the former say what they said.
    assert scoring.rows("SELECT count(*), count(DISTINCT id) FROM {name}.outcomes WHERE day = DATE '2020-02-20'") == [(50, 50)]
    stored = dict(scoring.rows("SELECT prediction_id, score FROM {name}.predictions"))
    assert len(stored) == scoring.rows("SELECT count(*) FROM {name}.predictions")[0][0]
    assert all(stored[identifier] == score for identifier, score in identifiers)
    assert scoring.rows(
        "SELECT list(DISTINCT split_part(prediction_id, ':', 4)) FROM {name}.predictions WHERE _generation = 3"
    ) == [(["g3"],)]


def test_a_prediction_stays_when_its_row_has_left_the_table(scoring: Scoring) -> None:
    scoring.score("2020-02-22", "2020-02-22")
    with scoring.lake.connect(read_only=False) as connection:
        connection.execute(f"DELETE FROM lake.{scoring.name}.visits WHERE day = DATE '2020-02-22' AND hash(id) % 10 = 0")
    [(left,)] = scoring.rows("SELECT count(*) FROM {name}.visits WHERE day = DATE '2020-02-22'")
    assert left < 50
    scoring.score("2020-02-22", "2020-02-22", "predictions")
    assert scoring.rows("SELECT count(*) FROM {name}.predictions WHERE day = DATE '2020-02-22' AND _counted") == [(50,)]
