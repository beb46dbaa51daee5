"""One more solution on a raw table of the project: only the solution is written, and what is known late is no feature."""

from pathlib import Path
from typing import Any

import pytest
from new_tables import FIRST_DAY, decided, propose_text, roles, scratch_database, solution
from parcels import parcels_project

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project
from mlops_assets.feature_store.usage import declared_solutions
from mlops_assets.operations.new_solution.answers import Answers
from mlops_assets.operations.new_solution.origin import Origin
from mlops_assets.operations.new_solution.proposal import Proposal, Proposer
from mlops_assets.operations.new_solution.writing import plan_files, write_files
from mlops_assets.schema.declarations import declared_tables, read_declarations

TEXT = "ordered at;shop;number;amount;is_returned;returned at;stars\n" + "".join(
    f"2024-01-{number // 40 + 1:02} {number % 24:02}:00:00;{'ab'[number % 2]};{number};{number % 13},5;"
    f"{'yes' if number % 3 == 0 else 'no'};2024-03-01 00:00:00;{number % 4 + 1}\n"
    for number in range(1000)
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with the solution `orders`, written by the command."""
    root = tmp_path / "shop"
    root.mkdir()
    project = parcels_project(root)
    answers = {"time": "ordered at", "known_at": "returned at", "time_zone": "Europe/Berlin", "key": ("shop", "number")}
    proposal = propose_text(tmp_path, TEXT, label="is_returned", name="orders", **answers)
    origin = Origin.of_file(str(tmp_path / "things.csv"))
    write_files(plan_files(project, "orders", origin, references=False), origin, proposal)
    return project


def propose_another(project: Project, **answers: Any) -> Proposal:
    folder = project.definitions_directory
    origin = Origin.of_table("orders", declared_tables(read_declarations(folder)))
    solutions = declared_solutions(folder).solutions.values()
    with scratch_database() as connection:
        return Proposer(connection, origin, "stars", FIRST_DAY, solutions).propose(Answers(**answers), "")


def test_only_a_solution_is_written(project: Project) -> None:
    origin = Origin.of_table("orders", declared_tables(read_declarations(project.definitions_directory)))
    files = plan_files(project, "stars", origin, references=False)
    proposal = propose_another(project, label="stars", time="ordered at", label_delay="3d", problem="regression")
    [written] = write_files(files, origin, proposal)
    assert written == project.definitions_directory / "stars" / "defs.yaml"
    first, second = (declared_solutions(project.definitions_directory).solutions[name] for name in ("orders", "stars"))
    assert (second.spine.table, second.spine.key) == ("orders", first.spine.key)
    assert second.partitions == first.partitions
    assert (second.training.window, second.training.holdout) == (first.training.window, first.training.holdout)
    with pytest.raises(StackError, match="Nothing is overwritten"):
        plan_files(project, "stars", origin, references=False)


def test_what_is_known_late_is_no_feature_unless_it_is_named(project: Project) -> None:
    answers = {"label": "stars", "time": "ordered at", "label_delay": "3d", "problem": "multiclass"}
    assert roles(propose_another(project, **answers), "feature") == ["amount"]
    kept = propose_another(project, **answers, feature=("is_returned",))
    assert solution(kept).features[0].request == ["amount", "is_returned"]
    assert decided(kept)["cadence"] == "daily"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"time": "none"}, "orders is partitioned by .*: it has a time"),
        ({"time": "ordered at", "time_zone": "UTC"}, "time_zone Europe/Berlin"),
        ({"time": "ordered at", "cadence": "weekly"}, "cadence daily"),
        ({"time": "ordered at", "delimiter": "comma"}, "--delimiter: how orders is read stands in"),
        ({"time": "returned at"}, "allows returned at to be missing"),
    ],
)
def test_what_the_table_decides_is_not_decided_otherwise(project: Project, answers: dict[str, str], message: str) -> None:
    with pytest.raises(StackError, match=message):
        propose_another(project, label="stars", problem="regression", label_delay="1d", **answers)


def test_a_table_that_is_not_there_is_refused_with_the_nearest(project: Project) -> None:
    tables = declared_tables(read_declarations(project.definitions_directory))
    with pytest.raises(StackError, match="There is no raw table 'order'") as error:
        Origin.of_table("order", tables)
    assert "orders" in error.value.remedy
    with pytest.raises(StackError, match="a raw table orders") as error:
        plan_files(
            project,
            "orders",
            Origin.of_file(str(project.definitions_directory / "orders_source" / "things.csv")),
            references=True,
        )
    assert "mlops new orders_2 --table orders" in error.value.remedy
