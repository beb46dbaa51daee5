"""The plan of `mlops demo`: the request that the project's `demo.yaml` makes to `mlops run`, and the replay that follows it."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import yaml
from dateutil.relativedelta import relativedelta
from pydantic import ValidationError

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import current_project
from mlops_assets.operations.run_plan import RunRequest
from mlops_assets.schema.yaml_loader import read_yaml
from mlops_assets.schema.yaml_model import YamlModel


@dataclass(frozen=True)
class DemoPlan:
    """Which solution, from which day, and how many months; the last one is predicted. Then time goes on to `replay_to`, if it does."""

    solution: str
    start: date
    months: int
    replay_to: date | None

    @classmethod
    def read(cls, months: int | None) -> "DemoPlan":
        """The plan in `defs/demo.yaml`; with another number of `months`, if given, and then without the replay.

        Raises StackError when there are fewer than 2 months, or the file is missing or says what is not understood.
        """
        content = _read(current_project().demo_file)
        plan = cls(
            solution=content.solution,
            start=content.start,
            months=months or content.months,
            replay_to=None if months else content.replay_to,
        )
        if plan.months < 2:
            raise StackError("The demo needs a month to train on and a month to predict.", remedy="mlops demo --months 2")
        return plan

    @property
    def training_date(self) -> date:
        """First day of the predicted month: what the model may know ends here."""
        return self.start + relativedelta(months=self.months - 1)

    @property
    def last(self) -> date:
        """Last day of data."""
        return self.start + relativedelta(months=self.months) - timedelta(days=1)

    @property
    def request(self) -> RunRequest:
        """The request of its run."""
        return RunRequest(self.solution, loaded_from=self.start, first=self.training_date, last=self.last, trains=True)


class _Content(YamlModel):
    """The content of `defs/demo.yaml`."""

    solution: str
    start: date
    months: int
    replay_to: date | None = None


def _read(file: Path) -> _Content:
    remedy = "It names a solution, a day `start`, a number of `months` and, if time goes on then, a day `replay_to`."
    try:
        return _Content.model_validate(read_yaml(file.read_text()))
    except FileNotFoundError as error:
        raise StackError(f"There is no {file}, which says what the demo shows.", remedy=f"Write it. {remedy}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StackError(f"{file} is no YAML: {error}", remedy=remedy) from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}" for problem in error.errors()
        )
        raise StackError(f"{file}: {problems}", remedy=remedy) from error
