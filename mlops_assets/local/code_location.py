"""Dagster's server of the code location, whose log names the environment: `python -m mlops_assets.local.code_location`.

It takes the options of `dagster api grpc`.
"""

import sys

from mlops_assets.core.named_lines import name_lines

if __name__ == "__main__":
    name_lines()
    from dagster._cli.api import grpc_command

    grpc_command.main(sys.argv[1:], prog_name="dagster api grpc")
