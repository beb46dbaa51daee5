"""Dagster's column lineage: the upstream columns that each column of a table is computed from.

Reports and statistics have none: their rows hold the names of columns as values, and each of their columns comes from all of them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from mlops_assets.core.keys import table_key
from mlops_assets.schema.column_names import MATURED, OUTPUTS, SPLIT, TRAINING_DATE
from mlops_assets.stages.inputs import SolutionInputs

ColumnSources = Mapping[str, Sequence[tuple[dg.AssetKey, str]]]
"""Column -> the columns of other assets that it is computed from."""


def column_lineage(sources: ColumnSources) -> dict[str, dg.TableColumnLineage]:
    """The metadata of a materialization that holds `sources`, each once: a request column may be a feature and be in a derived one."""
    deps = {
        column: [dg.TableColumnDep(asset_key=key, column_name=name) for key, name in dict.fromkeys(found)]
        for column, found in sources.items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps)}


def frame_lineage(inputs: SolutionInputs, columns: Iterable[str]) -> dict[str, dg.TableColumnLineage]:
    """The lineage of a table of rows of the spine with their features, and what a model makes of them."""
    spine, declared = table_key(inputs.spine.table), inputs.solution.spine
    sources = {name: [(spine, name)] for name in inputs.spine.columns}
    sources |= {
        name: [(spine, column) for column in inputs.request if re.search(rf"(?<!\w){re.escape(column)}(?!\w)", expression)]
        for name, expression in inputs.derived.items()
    }
    for chosen in inputs.views:
        view = table_key(chosen.view.model.table)
        sources |= {feature: [(view, feature)] for feature in chosen.features}
        if chosen.known_since and chosen.view.event_timestamp:
            sources[chosen.known_since] = [(view, chosen.view.event_timestamp)]
    features = [source for name in inputs.features for source in sources[name]]
    times = [(spine, declared.prediction_time), (spine, declared.label_time)]
    sources |= dict.fromkeys(OUTPUTS, features) | dict.fromkeys((TRAINING_DATE, SPLIT), times)
    return column_lineage({name: sources.get(name, ()) for name in columns})


def copied_lineage(
    inputs: SolutionInputs, columns: Iterable[str], *, upstream: dg.AssetKey, scored: bool
) -> dict[str, dg.TableColumnLineage]:
    """The lineage of a table of the rows of `upstream`, with labels of the spine; `scored` tells that it adds a model's outputs."""
    spine, declared = table_key(inputs.spine.table), inputs.solution.spine
    labels = {name: [(spine, name)] for name in (declared.label, declared.label_time)} | {MATURED: [(spine, declared.label_time)]}
    features = [(upstream, name) for name in inputs.features]
    outputs = dict.fromkeys(OUTPUTS, features) if scored else {}
    return column_lineage({name: (outputs | labels).get(name, [(upstream, name)]) for name in columns})
