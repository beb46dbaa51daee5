"""The SQL of a spine without time: the whole raw table as of each day of a window, with the rows that are kept for evaluation."""

from collections.abc import Sequence

from mlops_assets.features.generated.dbt_model import DbtColumn, sql_name
from mlops_assets.schema.column_names import HELD_OUT, LABELLED_AT, LOADED_AT, SNAPSHOT_AT, internal
from mlops_assets.schema.solution import Solution

SNAPSHOT_COLUMNS = (
    DbtColumn(name=SNAPSHOT_AT, type="timestamptz", description="When the day of the snapshot began.", required=True),
    DbtColumn(name=LABELLED_AT, type="timestamptz", description="The same where there is a label; null without one."),
    DbtColumn(
        name=HELD_OUT,
        type="boolean",
        description="Whether the row is kept for evaluation, and not trained on; null without a label.",
    ),
)

_STRATA = 5
"""Of a regression: parts of the rows by their label, each of which is held out by the same share."""


def snapshot_query(solution: Solution, *, lines: str, source: str, columns: Sequence[str]) -> str:
    """The query of the spine of `solution`. `lines` select its `columns` from the raw table `source` and the day of the snapshot.

    A row is held out by the hash of its key, the same share of each class, so that it stays where it is from one snapshot to the next.
    """
    partition, label, key = solution.partitions.column, sql_name(solution.spine.label), sql_name(solution.spine.key)
    stratum, labelled = internal("stratum"), internal("labelled")
    of_row = label
    if solution.problem == "regression":
        of_row = f"ntile({_STRATA}) over (partition by {partition}, {labelled} order by {label}, {key})"
    group = f"partition by {partition}, {labelled}, {stratum}"
    names = ",\n".join(f"    {sql_name(name)}" for name in columns)
    return f"""with snapshots as (
select
{lines}
from {source}
cross join {{{{ mlops.snapshot_days('{partition}') }}}}
),

labelled as (
select *, {label} is not null as {labelled}
from snapshots
),

strata as (
select *, {of_row} as {stratum}
from labelled
)

select
{names},
    {{{{ mlops.start_of_business_date('{partition}') }}}} as {SNAPSHOT_AT},
    case when {labelled} then {{{{ mlops.start_of_business_date('{partition}') }}}} end as {LABELLED_AT},
    case when {labelled} then
        row_number() over ({group} order by md5({key}::varchar), {key})
        <= round(count(*) over ({group}) * {solution.training.holdout_share})
    end as {HELD_OUT},
    {LOADED_AT}
from strata
"""
