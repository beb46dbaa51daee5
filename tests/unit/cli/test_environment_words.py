"""The environment that a command line names, before its command is known."""

import pytest

from mlops_assets.cli.environment_words import split_environment


@pytest.mark.parametrize(
    ("words", "environment", "left"),
    [
        ("status --json", None, "status --json"),
        ("--env prod promote x --to 3", "prod", "promote x --to 3"),
        ("--env=prod status", "prod", "status"),
        ("promote x --from staging --to prod --reason y", "prod", "promote x --from staging --to prod --reason y"),
        ("promote x --from=staging --to=prod", "prod", "promote x --from=staging --to=prod"),
        ("--env prod promote x --from staging --to other", "prod", "promote x --from staging --to other"),
        # A version of the environment that the process is of.
        ("promote x --to 3", None, "promote x --to 3"),
        ("promote x --from staging", None, "promote x --from staging"),
        ("dataset --env prod", None, "dataset --env prod"),
        ("--env= status", "", "status"),
        ("promote x --from staging --to=", "", "promote x --from staging --to="),
        ("--env", None, ""),
        ("--environment prod status", None, "--environment prod status"),
        ("", None, ""),
    ],
)
def test_it_stands_before_the_command_or_is_the_target_of_a_promotion(words: str, environment: str | None, left: str) -> None:
    assert split_environment(words.split()) == (environment, left.split())
