"""`meta.feature_view`: the feature view that the YAML file of a dbt model describes."""

from typing import Annotated

from pydantic import Field

from mlops_assets.schema.yaml_model import Owner, YamlModel


class FeatureViewMeta(YamlModel):
    """`meta.feature_view` of a dbt model: what makes it a feature view.

    `freshness_days`: older values do not count at prediction time. `refresh_days`: Dagster calls the view stale when it was not
    materialized for so long (left out: twice its cadence). `version` may only repeat the dbt version of the model.
    """

    entity: Annotated[list[str], Field(min_length=1)]
    """Columns that identify the thing described. The spine must have columns of these names."""
    event_timestamp: str | None = None
    """Column with the moment from which a row's values are known; left out, they hold at all times."""
    freshness_days: Annotated[int, Field(ge=1)] | None = None
    """Values older than this at prediction time count as missing; left out, no limit."""
    refresh_days: Annotated[int, Field(ge=1)] | None = None
    """Days without a materialization after which the view counts as stale."""
    online: bool = True
    """Whether the view belongs into the online store."""
    owner: Owner | None = None
    """Who answers for it; left out, `meta.owner`."""
    description: str = ""
    """What the view holds; left out, the description of the model."""
    version: int | None = None
    """May only repeat the dbt version of the model, 1 for a model without versions."""
