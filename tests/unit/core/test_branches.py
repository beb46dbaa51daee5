"""Names of branches, made of those of git."""

import hashlib

import pytest

from mlops_assets.core.branches import branch_environment, branch_name, branch_name_of


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("main", "main"),
        ("feature/New_Label.v2\n", "feature-new-label-v2"),
        ("x" * 40, "x" * 21 + "-" + digest("x" * 40)),
        ("-a" * 20, "a-" * 11 + digest("-a" * 20)),
        ("it's;rm -rf $HOME", "it-s-rm-rf-home"),
        ("métier", "m-tier-" + digest("métier")),
        ("予測", digest("予測")),
    ],
)
def test_a_branch_of_git_gives_a_name_that_a_folder_and_an_environment_can_have(text: str, name: str) -> None:
    assert branch_name_of(text) == name
    assert branch_name(branch_environment(name)) == name


def test_what_has_no_letter_gives_no_name() -> None:
    with pytest.raises(ValueError, match="has no letter and no digit"):
        branch_name_of("../..")


@pytest.mark.parametrize("environment", ["local", "prod", "branch-", "branch-../x", "my-branch-x"])
def test_other_environments_are_no_branches(environment: str) -> None:
    assert branch_name(environment) is None
