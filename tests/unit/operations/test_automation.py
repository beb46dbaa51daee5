"""The parts of automation that are switched apart from each other."""

from mlops_assets.core.conditions import build_conditions_sensors
from mlops_assets.operations.automation import names_of_parts

RETRAINING = ["clinic_retraining", "school_retraining"]
FEATURES, STAGES = (sensor.name for sensor in build_conditions_sensors())


def test_what_follows_of_features_is_switched_without_retraining() -> None:
    assert names_of_parts(RETRAINING, ["features"]) == {FEATURES}
    assert names_of_parts(RETRAINING, ["features", "stages"]) == {FEATURES, STAGES}
    assert names_of_parts(RETRAINING, ["retraining"]) == set(RETRAINING)


def test_all_parts_are_all_sensors_that_act_by_themselves() -> None:
    assert names_of_parts(RETRAINING, ["features", "stages", "retraining"]) == {FEATURES, STAGES, *RETRAINING}
