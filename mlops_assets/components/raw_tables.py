"""`RawTables`: a source of raw tables from YAML alone."""

from pathlib import Path

import dagster as dg
from pydantic import BaseModel

from mlops_assets.assets.raw_tables import build_raw_assets
from mlops_assets.source import Source


class RawTables(dg.Component):
    """Raw tables read from files, URLs or another database into the lake. Its attributes are `mlops_assets.source.Source`."""

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
        """One asset for each table."""
        return dg.Definitions(assets=build_raw_assets(self.source, directory=Path(context.path)))
