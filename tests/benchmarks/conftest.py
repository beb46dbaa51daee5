from pathlib import Path

import pytest
from figures import FIGURES, table, write_page


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--page", type=Path, help="Write what is measured into the table of this file.")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if FIGURES:
        terminalreporter.section("benchmarks")
        terminalreporter.write(table(FIGURES))
        page = config.getoption("--page")
        if page is not None:
            write_page(page, FIGURES)
