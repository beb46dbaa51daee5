"""The stages of the bundled solutions are those that are declared."""

from mlops_assets.components.stages import STAGES, stages_of
from mlops_assets.core.keys import CHECK_EVENT_TAG, SEGMENT_STAGES, SOLUTION_TAG, STAGE_TAG, job_name
from mlops_assets.definitions import defs
from mlops_assets.operations.solutions import declared_solution


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
