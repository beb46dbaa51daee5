"""Dagster's server of the code location, and what begins a run or a step in a pod, with the environment in each line that they print.

`python -m mlops_assets.local.dagster_api` takes the words of `dagster api`, which has no option for it.
"""

from mlops_assets.core.named_lines import name_lines

if __name__ == "__main__":
    name_lines()
    from dagster._cli.api import api_cli

    api_cli.main(prog_name="dagster api")
