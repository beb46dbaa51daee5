"""The stages of the bundled solutions are those that are declared."""

import pytest

from mlops_assets.components.ml_solution import MLSolution
from mlops_assets.components.stages import STAGES, check_resources, stages_of
from mlops_assets.core.keys import CHECK_EVENT_TAG, SEGMENT_STAGES, SOLUTION_TAG, STAGE_TAG, job_name
from mlops_assets.core.project import current_project
from mlops_assets.definitions import defs
from mlops_assets.operations.solutions import declared_solution
from mlops_assets.runs.slots import CHAMPION, SLOTS_TAG
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.pod_tags import POD_TAG


def with_resources(**resources: dict[str, object]) -> Solution:
    declared = declared_solution("flight_delay").model_dump(exclude_unset=True)
    return Solution.model_validate({**declared, "resources": resources})


def test_every_asset_of_a_solution_is_a_stage_with_what_its_declaration_says() -> None:
    definitions = defs()
    declared = {stage.name: stage for stage in STAGES}
    assert len(declared) == len(STAGES)
    names = {name: stage.name for stage in STAGES for name in (stage.name, *stage.also)}
    names |= {of_segments: name for name, of_segments in SEGMENT_STAGES.items()}
    specs = [spec for spec in definitions.resolve_all_asset_specs() if STAGE_TAG in spec.tags]
    solutions = {spec.tags[SOLUTION_TAG] for spec in specs}
    assert len(specs) >= len(solutions) * len(STAGES) > 0
    for spec in specs:
        stage = declared[names[spec.tags[STAGE_TAG]]]
        assert spec.tags.get(CHECK_EVENT_TAG) == stage.check_event
        assert callable(stage.condition) or spec.automation_condition == stage.condition
    for solution in solutions:
        stages = {spec.tags[STAGE_TAG] for spec in specs if spec.tags[SOLUTION_TAG] == solution}
        assert stages >= {name for stage in STAGES for name in (stage.name, *stage.also)}
        for job in ("training", "scoring", "monitoring"):
            selected = definitions.resolve_job_def(job_name(solution, job)).asset_layer.selected_asset_keys
            assert {key.path[-1] for key in selected} == set(stages_of(job, declared_solution(solution)))


def test_the_step_of_a_stage_carries_the_resources_of_its_yaml() -> None:
    solution = with_resources(model={"memory": "16Gi"}, deployment={"cpu": 0.5}, prediction_log={"cpu": 2})
    definitions = MLSolution(solution).definitions(current_project().root, origin={})
    tags = {name: asset.op.tags for asset in definitions.assets or () for name in (key.path[-1] for key in asset.keys)}
    carried = {name: tags[name][POD_TAG] for name in tags if POD_TAG in tags[name]}
    assert carried.keys() == {
        "model",
        "segment_model",
        "deployment",
        "segment_deployment",
        "prediction_log",
        "shadow_predictions",
    }
    assert "16Gi" in str(carried["model"])
    # They stay among the runs that never wait for a training.
    assert {tags[name][SLOTS_TAG] for name in ("deployment", "segment_deployment")} == {CHAMPION}


def test_resources_of_a_stage_that_is_none_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no stage 'modell'; did you mean model"):
        check_resources(with_resources(modell={"cpu": 1}))
    check_resources(with_resources(drift_report={"cpu": 1}))
