"""First files of the components, as `dg scaffold defs mlops_assets.MLSolution <name>` writes them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import dagster as dg
from pydantic import BaseModel, Field

from mlops_assets.core.text_templates import text_templates
from mlops_assets.schema.first_choices import first_choices
from mlops_assets.schema.problem import Problem

_TEMPLATES = Path(__file__).parent / "templates"


class RawTablesParameters(BaseModel):
    """What `dg scaffold defs mlops_assets.RawTables` asks for."""

    table: str = Field(default="", description="The table; left out, the name of the folder.")
    file: str = Field(default="", description="Its CSV file, in the folder; left out, <folder>.csv.")
    owner: str = Field(default="team:data", description="Who answers for it: team:<name>, or an e-mail address.")


class DbtModelsParameters(BaseModel):
    """What `dg scaffold defs mlops_assets.DbtModels` asks for."""

    tag: str = Field(default="", description="The tag of the models; left out, the name of the folder.")
    project: str = Field(default="dbt_project", description="The folder of the dbt project.")


class MLSolutionParameters(BaseModel):
    """What `dg scaffold defs mlops_assets.MLSolution` asks for."""

    problem: Problem = Field(default="binary_classification", description="What is predicted.")
    table: str = Field(default="", description="The raw table of the predictions and labels, from which the spine is derived.")
    model: str = Field(default="", description="Without a table: the dbt model of the spine; left out, <folder>_spine.")
    label: str = Field(default="label", description="Its column with what happened.")
    owner: str = Field(default="team:data", description="Who answers for it: team:<name>, or an e-mail address.")


_Parameters = TypeVar("_Parameters", bound=BaseModel)


class _Scaffolder(dg.Scaffolder[_Parameters], Generic[_Parameters]):
    """Writes the `defs.yaml` of one component from its template."""

    template: str
    parameters: type[_Parameters]

    @classmethod
    def get_scaffold_params(cls) -> type[_Parameters]:
        """The options of `dg scaffold`."""
        return cls.parameters

    def scaffold(self, request: dg.ScaffoldRequest[_Parameters]) -> None:
        """Write the file, or add a component to it. Raises ValueError for `--format python`, which the components do not have."""
        if request.scaffold_format != "yaml":
            raise ValueError("this component is described in YAML: leave out --format")
        environment = text_templates(_TEMPLATES)
        # Of a file that gets one more component, the folder has the name.
        folder = request.target_path.parent if request.append else request.target_path
        text = environment.get_template(self.template).render(
            type=request.type_name,
            name=folder.name,
            start=datetime(datetime.now(UTC).year - 1, 1, 1, tzinfo=UTC).date(),
            parameters=request.params,
            **self.variables(request.params),
        )
        if request.append:
            with request.target_path.open("a") as file:
                file.write(f"---\n{text}")
        else:
            (request.target_path / "defs.yaml").write_text(text)

    def variables(self, parameters: _Parameters) -> dict[str, Any]:
        """Further variables of the template."""
        return {}


class RawTablesScaffolder(_Scaffolder[RawTablesParameters]):
    """A source of one table."""

    template = "raw_tables.yaml.j2"
    parameters = RawTablesParameters


class DbtModelsScaffolder(_Scaffolder[DbtModelsParameters]):
    """The models with one tag."""

    template = "dbt_models.yaml.j2"
    parameters = DbtModelsParameters


class MLSolutionScaffolder(_Scaffolder[MLSolutionParameters]):
    """A solution with the metric and the estimator of its problem."""

    template = "ml_solution.yaml.j2"
    parameters = MLSolutionParameters

    def variables(self, parameters: MLSolutionParameters) -> dict[str, Any]:
        """The metric and the estimator."""
        choices = first_choices(parameters.problem)
        return {"metric": choices.metric, "estimator": choices.estimator}
