"""The feature catalog as a page: every view with its columns, their values over time, its users and the impact of a change.

All views are one HTML file, which holds all it needs: no network, no server. Where the lake is not at hand, definitions and uses are shown
without values. One view is Markdown, which Dagster shows on the page of its asset.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from mlops_assets.core.environment_files import environment_prefix
from mlops_assets.feature_store.catalog import FeatureCatalog
from mlops_assets.feature_store.registry import FeatureView
from mlops_assets.feature_store.statistics import PARTITION, statistics_history
from mlops_assets.lake.sql import lake_name, quote
from mlops_assets.lake.tables import table_exists

_LAST_ROWS = 5
_WIDTH, _HEIGHT = 220.0, 44.0
_PLOTTED_PARTITIONS = 90
"""Of a view in Dagster, whose size does not grow with its history."""


def render_site(catalog: FeatureCatalog, connection: duckdb.DuckDBPyConnection | None) -> str:
    """The page of all views; `connection` reads the lake, None leaves the values out."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.PackageLoader("mlops_assets.feature_store"), autoescape=True)
    views = [_described(catalog, view, connection) for _, view in sorted(catalog.registry.views.items())]
    return environment.get_template("catalogue.html.j2").render(
        views=views, with_values=connection is not None, title=f"{environment_prefix()}Features"
    )


def render_view(catalog: FeatureCatalog, view: FeatureView, connection: duckdb.DuckDBPyConnection) -> str:
    """One view as Markdown, with the values of its newest partitions; `connection` reads the lake."""
    import jinja2

    # Markdown, not HTML: what a cell may hold is seen to by `_cell`.
    environment = jinja2.Environment(loader=jinja2.PackageLoader("mlops_assets.feature_store"), autoescape=False)  # noqa: S701
    environment.filters |= {"cell": _cell, "sparkline": _sparkline}
    described = _described(catalog, view, connection, partitions=_PLOTTED_PARTITIONS)
    return environment.get_template("view.md.j2").render(view=described)


def _cell(text: str) -> str:
    """`text` in one line, without what Markdown would take for markup."""
    return re.sub(r"([\\`*_{}\[\]<>|])", r"\\\1", " ".join(str(text).split()))


def _sparkline(plot: Mapping[str, str]) -> str:
    """A plot as the address of an image that it holds itself."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}">'
        f'<polygon points="{plot["band"]}" fill="#2563eb" opacity="0.18"/>'
        f'<polyline points="{plot["line"]}" fill="none" stroke="#2563eb" stroke-width="1.5"/></svg>'
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _described(
    catalog: FeatureCatalog, view: FeatureView, connection: duckdb.DuckDBPyConnection | None, *, partitions: int | None = None
) -> dict[str, Any]:
    """The content of the page of a view; `partitions` are the newest ones that are plotted, None for all."""
    definition = catalog.definition(view)
    impact = catalog.impact(view.model.table)
    history = _history(catalog, view, connection)
    last = _last_rows(view, connection)
    columns = [
        column | {"newest": series[-1] if series else None, "plot": _plot(series[-partitions:] if partitions else series)}
        for column in definition["columns"]
        for series in [history.get(column["column"], [])]
    ]
    return definition | {
        "columns": columns,
        "live_models": [model.label for model in catalog.live_models_of(view)],
        "breaks": {name: impact[name] for name in ("solutions", "live_models")}
        | {"tables": [table for table in impact["tables"] if table != view.model.table]},
        "last": last,
        "newest_partition": max(
            (str(row[PARTITION]) for series in history.values() for row in series if row[PARTITION]), default=None
        ),
        "refresh_days": view.refresh_days,
    }


def _history(
    catalog: FeatureCatalog, view: FeatureView, connection: duckdb.DuckDBPyConnection | None
) -> dict[str, list[dict[str, Any]]]:
    """Feature -> its statistics by partition, the oldest first."""
    if connection is None:
        return {}
    series: dict[str, list[dict[str, Any]]] = {}
    for table in catalog.statistics_tables(view):
        for row in statistics_history(connection, table=table, view=view.name, version=view.version):
            series.setdefault(row["feature"], []).append(row)
    return series


def _last_rows(view: FeatureView, connection: duckdb.DuckDBPyConnection | None) -> dict[str, Any] | None:
    """The newest rows of the view as text; None when it is not materialized."""
    if connection is None or not table_exists(connection, view.model.table):
        return None
    order = view.event_timestamp or view.model.partition_column
    names = [*view.entity, *([view.event_timestamp] if view.event_timestamp else []), *view.features]
    by = f"ORDER BY {quote(order)} DESC" if order else "ORDER BY ALL"
    rows = connection.execute(
        f"SELECT {', '.join(map(quote, names))} FROM {lake_name(view.model.table)} {by} LIMIT {_LAST_ROWS}"
    ).fetchall()
    return {"columns": names, "rows": [["" if value is None else str(value) for value in row] for row in rows]}


def _plot(series: Sequence[dict[str, Any]]) -> dict[str, str] | None:
    """Median with the band from the 5 % to the 95 % quantile, of a text the share of missing values; None below two partitions."""
    numbers = [row for row in series if row["median"] is not None]
    if len(numbers) >= 2:
        low, high = min(row["quantile_05"] for row in numbers), max(row["quantile_95"] for row in numbers)
        upper = _points([row["quantile_95"] for row in numbers], low, high)
        lower = _points([row["quantile_05"] for row in numbers], low, high)
        line = _points([row["median"] for row in numbers], low, high)
        return {"band": " ".join([*upper, *reversed(lower)]), "line": " ".join(line), "title": "median, 5 % to 95 %"}
    if len(series) >= 2:
        return {
            "band": "",
            "line": " ".join(_points([row["missing_share"] for row in series], 0.0, 1.0)),
            "title": "missing share",
        }
    return None


def _points(values: Sequence[float], low: float, high: float) -> list[str]:
    span = (high - low) or 1.0
    step = _WIDTH / (len(values) - 1)
    return [f"{number * step:.1f},{_HEIGHT - (value - low) / span * _HEIGHT:.1f}" for number, value in enumerate(values)]
