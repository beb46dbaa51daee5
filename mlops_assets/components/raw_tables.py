"""`RawTables`: a source of raw tables from YAML alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.components.scaffolding import RawTablesScaffolder
from mlops_assets.components.tagged_models import build_own_models
from mlops_assets.components.yaml_component import YamlComponent
from mlops_assets.core.project import current_project
from mlops_assets.core.schedules import check_schedule
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.feature_store.usage import declared_solutions
from mlops_assets.features.generated.project_files import views_of
from mlops_assets.features.generated.rolling_view import derive_view
from mlops_assets.schema.column_names import check_column_name, repeated
from mlops_assets.schema.configuration_errors import ConfigurationError, ErrorCollector
from mlops_assets.schema.source import Source
from mlops_assets.sources.computed_columns import expression_problems
from mlops_assets.sources.loading_schedule import build_loading_jobs, build_loading_schedules
from mlops_assets.sources.raw_tables import build_raw_assets


@dg.scaffold_with(RawTablesScaffolder)
class RawTables(YamlComponent):
    """Raw tables read from files, URLs or another database into the lake. Its attributes are `mlops_assets.schema.source.Source`."""

    model = Source

    def __init__(self, source: Source):
        self.source = source

    def definitions(self, folder: Path, *, origin: Mapping[str, Any]) -> dg.Definitions:
        """One asset for each table and each of its feature views, the jobs that load the tables, and their schedules.

        Raises ConfigurationError as `check` does.
        """
        self.check()
        raw = build_raw_assets(self._with_awaited_columns(), directory=folder, origin=origin)
        return dg.Definitions(
            assets=[*raw, *self._models(folder.name, origin)],
            jobs=build_loading_jobs(self.source, name=folder.name),
            schedules=build_loading_schedules(self.source, name=folder.name),
        )

    def check(self) -> None:
        """Raise ConfigurationError for columns with a name of the platform's, expressions and a cron expression that are none, and feature
        views that do not fit their tables.
        """
        errors = ErrorCollector()
        with errors.collect():
            check_schedule(self.source.schedule)
        for name, table in self.source.tables.items():
            partition = table.partitions.column if table.partitions else None
            for column in table.columns:
                # Of the data's columns the table of rejected rows has the partition alone.
                reserved_for = ["raw", "raw_rejects"] if column == partition else ["raw"]
                path = ("tables", name, "columns", column)
                with errors.collect():
                    check_column_name(column, path, place=f"raw table {name}", reserved_for=reserved_for)
            if same := repeated(table.columns):
                message = f"raw table {name}: {', '.join(same)} are one name to the lake, whatever the case; rename one"
                errors.add(("tables", name, "columns", same[-1]), message)
            for column, problem in expression_problems(table).items():
                errors.add(("tables", name, "columns", column, "expression"), problem)
        for name in self.source.feature_views:
            with errors.collect():
                derive_view(name, self.source, folder="", origin="")
        errors.raise_errors()

    def _with_awaited_columns(self) -> Source:
        """The source whose tables say which columns are null until something has happened: solutions and feature views use them so."""
        solutions = declared_solutions(current_project().definitions_directory).solutions.values()
        tables = {}
        for name, table in self.source.tables.items():
            spines = [solution.spine for solution in solutions if solution.spine.table == name]
            awaited = {column for spine in spines for column in (spine.label, spine.label_time)}
            awaited |= {view.known_at for view in self.source.feature_views.values() if view.table == name and view.known_at}
            columns = sorted({*table.comparison.awaited, *awaited.intersection(table.columns)})
            tables[name] = table.model_copy(update={"comparison": table.comparison.model_copy(update={"awaited": columns})})
        return self.source.model_copy(update={"tables": tables})

    def _models(self, name: str, origin: Mapping[str, Any]) -> list[dg.AssetsDefinition]:
        """The dbt models of the source: its feature views, and what else has its name as a tag."""
        project = current_project()
        if self.source.feature_views:
            views = views_of(self.source, name, project)
            known = FeatureRegistry.from_manifest(project.dbt_manifest).models if project.dbt_manifest.exists() else {}
            if missing := [view.name for view in views if view.name not in known]:
                raise ConfigurationError(("feature_views", missing[0]), "there is no dbt model of it yet: run `mlops prepare`")
        partitions = self.source.model_partitions
        return build_own_models(name, partitions, origin=origin) if partitions else []
