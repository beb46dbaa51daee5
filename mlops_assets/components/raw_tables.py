"""`RawTables`: a source of raw tables from YAML alone."""

from pathlib import Path

import dagster as dg
from pydantic import BaseModel

from mlops_assets.components.scaffolding import RawTablesScaffolder
from mlops_assets.core.schedules import check_schedule
from mlops_assets.schema.column_names import check_column_name, repeated
from mlops_assets.schema.configuration_errors import ErrorCollector
from mlops_assets.schema.source import Source
from mlops_assets.sources.loading_schedule import build_loading_jobs, build_loading_schedules
from mlops_assets.sources.raw_tables import build_raw_assets
from mlops_assets.sources.reader import expression_problems


@dg.scaffold_with(RawTablesScaffolder)
class RawTables(dg.Component):
    """Raw tables read from files, URLs or another database into the lake. Its attributes are `mlops_assets.schema.source.Source`."""

    def __init__(self, source: Source):
        self.source = source

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The schema of the attributes."""
        return Source

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "RawTables":
        """Take the validated attributes as they are."""
        return cls(Source.model_validate(attributes))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """One asset for each table, the jobs that load them, and their schedules. Raises ConfigurationError as `check` does."""
        self.check()
        directory = Path(context.path)
        return dg.Definitions(
            assets=build_raw_assets(self.source, directory=directory),
            jobs=build_loading_jobs(self.source, name=directory.name),
            schedules=build_loading_schedules(self.source, name=directory.name),
        )

    def check(self) -> None:
        """Raise ConfigurationError for columns with a name of the platform's, expressions that are none, and a cron expression that is none."""
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
        errors.raise_errors()
