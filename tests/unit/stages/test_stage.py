"""Declared stages beside the keys of their assets."""

from dataclasses import replace

from late_inputs import INPUTS

from mlops_assets.components.stages import STAGES
from mlops_assets.schema.solution import Segments

SEGMENTED = replace(
    INPUTS, solution=INPUTS.solution.model_copy(update={"segments": Segments(column="place", values=["a"])}), by_segment=True
)


def test_a_stage_that_segments_have_is_another_asset_for_them() -> None:
    with_segments = [stage.name for stage in STAGES if stage.has_segments]
    assert with_segments
    for stage in STAGES:
        assert (SEGMENTED.key(stage.name) != INPUTS.key(stage.name)) is stage.has_segments
