"""The identity of a configuration: what makes another model, and what does not."""

from dataclasses import replace

from late_inputs import INPUTS

from mlops_assets.training.candidate import current_configuration_hash


def test_the_same_inputs_have_the_same_configuration() -> None:
    assert current_configuration_hash(INPUTS, with_budget=True) == current_configuration_hash(replace(INPUTS), with_budget=True)


def test_what_makes_another_model_is_another_configuration() -> None:
    training = INPUTS.solution.training
    view = INPUTS.views[0]
    derived = replace(INPUTS, derived={"far": "distance > 1000"})
    others = [
        replace(INPUTS, solution=INPUTS.solution.model_copy(update={"training": training.model_copy(update={"seed": 7})})),
        replace(INPUTS, request=()),
        replace(INPUTS, segment="a"),
        replace(INPUTS, views=(replace(view, view=replace(view.view, version=2)),)),
        derived,
        # The same name for another expression.
        replace(derived, derived={"far": "distance > 2000"}),
    ]
    hashes = [current_configuration_hash(each, with_budget=True) for each in (INPUTS, *others)]
    assert len(set(hashes)) == len(hashes)


def test_what_does_not_touch_the_model_does_not_change_its_configuration() -> None:
    renamed = INPUTS.solution.model_copy(update={"description": "Other words.", "owners": ["team:b"]})
    assert current_configuration_hash(replace(INPUTS, solution=renamed), with_budget=True) == current_configuration_hash(
        INPUTS, with_budget=True
    )
