"""`mlops new`: a solution from a table. Options, questions and printing only."""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import markup
from rich.table import Table

from mlops_assets.cli.terminal import JsonOption, console, print_json, read_settings
from mlops_assets.core.errors import StackError
from mlops_assets.schema.cadence import CADENCE_LENGTHS
from mlops_assets.schema.problem import PROBLEMS

if TYPE_CHECKING:
    from mlops_assets.operations.new_solution.answers import Answers, Decision
    from mlops_assets.operations.new_solution.proposal import Proposal

app = typer.Typer()

_MANY_COLUMNS = 60


def _choices(*values: str) -> Callable[[str], list[str]]:
    """The completion of an option that has these values."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


def _column(text: str) -> str:
    return f"{text} A name as in the table."


@app.command(
    epilog="Example: [bold]mlops new parcels --from parcels.csv --label is_late --time sent_at --known-at delivered_at[/bold]"
)
def new(
    name: Annotated[str, typer.Argument(help="Name of the solution and of its raw table: lower-case letters, digits and _.")],
    label: Annotated[str, typer.Option(help=_column("The column to predict."))],
    source: Annotated[
        str | None, typer.Option("--from", help="A CSV, Parquet or JSON file, packed or not, or the URL of one.")
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="Instead of a file: a raw table of the project, for one more solution.")
    ] = None,
    query: Annotated[str | None, typer.Option(help="Instead of a file: a query on a Postgres.")] = None,
    url_variable: Annotated[str, typer.Option(help="Environment variable with its connection string.")] = "SOURCE_URL",
    time: Annotated[str | None, typer.Option(help=_column("The moment of the prediction; none: the table has no time."))] = None,
    key: Annotated[
        list[str] | None, typer.Option(help=_column("A column of the key; repeat it for several. none: no key."))
    ] = None,
    known_at: Annotated[str | None, typer.Option(help=_column("When the label became known."))] = None,
    label_delay: Annotated[
        str | None, typer.Option(help="Without --known-at: how long after the prediction, such as 1d.")
    ] = None,
    problem: Annotated[str | None, typer.Option(help=f"{', '.join(PROBLEMS)}.", autocompletion=_choices(*PROBLEMS))] = None,
    positive: Annotated[str | None, typer.Option(help="Of a label of two texts: the one whose probability is predicted.")] = None,
    feature: Annotated[list[str] | None, typer.Option(help=_column("Use it although it looks unfit; repeatable."))] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help=_column("No feature; repeatable. none: also what nearly tells the label is one."))
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="Zone of times without an offset, and of the days: Europe/Berlin.")
    ] = None,
    cadence: Annotated[
        str | None,
        typer.Option(help=f"Length of a partition: {', '.join(CADENCE_LENGTHS)}.", autocompletion=_choices(*CADENCE_LENGTHS)),
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(
            help="What parts the columns: the sign, or its name.", autocompletion=_choices("comma", "semicolon", "tab", "bar")
        ),
    ] = None,
    quote: Annotated[str | None, typer.Option(help="Sign around values.", autocompletion=_choices("double", "single"))] = None,
    escape: Annotated[
        str | None, typer.Option(help="Sign before a quote within quotes.", autocompletion=_choices("backslash"))
    ] = None,
    skip: Annotated[int | None, typer.Option(min=0, help="Lines before the header.")] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of the file.", autocompletion=_choices("utf-8", "cp1252", "latin-1", "utf-16"))
    ] = None,
    decimal: Annotated[
        str | None, typer.Option(help="Decimal mark: point or comma.", autocompletion=_choices("point", "comma"))
    ] = None,
    thousands: Annotated[
        str | None,
        typer.Option(help="Separator of thousands.", autocompletion=_choices("point", "comma", "space", "apostrophe")),
    ] = None,
    date_format: Annotated[
        str | None,
        typer.Option(
            help="day-first or month-first, or a format of strptime.", autocompletion=_choices("day-first", "month-first")
        ),
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Of a file without a header: the names of its columns, parted by commas.")
    ] = None,
    null: Annotated[list[str] | None, typer.Option(help="A text that means a missing value; repeatable.")] = None,
    owner: Annotated[str, typer.Option(help="Who answers for it: team:<name>, or an e-mail address.")] = "team:data",
    description: Annotated[str | None, typer.Option(help="What is predicted, and when.")] = None,
    reference: Annotated[bool, typer.Option("--reference", help="Name the file where it is instead of copying it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Take the best guess instead of asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a solution of a table: find out how it is read and what its columns are, ask what is open, and write two YAML files.

    Of a raw table that the project has (--table) only the solution is written.

    A file is copied into the project. Nothing is overwritten. Then: mlops check, mlops run, mlops predict.
    """
    from mlops_assets.core.project import current_project
    from mlops_assets.feature_store.usage import declared_solutions
    from mlops_assets.local.permissions import readable_by_all
    from mlops_assets.operations.new_solution.answers import Answers
    from mlops_assets.operations.new_solution.origin import Origin
    from mlops_assets.operations.new_solution.proposal import Proposer, open_scratch_database
    from mlops_assets.operations.new_solution.writing import plan_files, write_files
    from mlops_assets.schema.declarations import declared_tables, read_declarations
    from mlops_assets.sources.extract import SourceError

    if [source, query, table].count(None) != 2:
        raise StackError("Where are the rows?", remedy="Give one of --from FILE, --query SQL and --table NAME.")
    project = current_project()
    if table is not None:
        origin = Origin.of_table(table, declared_tables(read_declarations(project.definitions_directory)))
    else:
        origin = Origin.of_file(source) if source else Origin.of_query(str(query), url_variable)
    read_settings()  # takes over the variables of the project, such as that of the query
    files = plan_files(project, name, origin, references=reference)
    answers = Answers(
        label=label,
        time=time,
        key=tuple(key or ()),
        known_at=known_at,
        label_delay=label_delay,
        problem=problem,
        positive=positive,
        time_zone=time_zone,
        cadence=cadence,
        delimiter=delimiter,
        quote=quote,
        escape=escape,
        skip=skip,
        encoding=encoding,
        decimal=decimal,
        thousands=thousands,
        date_format=date_format,
        names=tuple(part.strip() for part in names.split(",")) if names else (),
        null=tuple(null or ()),
        feature=tuple(feature or ()),
        leave_out=tuple(leave_out or ()),
        owner=owner,
        description=description,
    )
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    with tempfile.TemporaryDirectory() as folder, open_scratch_database(Path(folder)) as connection:
        solutions = declared_solutions(project.definitions_directory).solutions.values()
        proposer = Proposer(connection, origin, name, yesterday, solutions)
        try:
            proposal = proposer.propose(answers, files.label)
            if not yes:
                proposal = _ask(answers, proposal, lambda answered: proposer.propose(answered, files.label))
        except (SourceError, ConnectionError) as error:
            raise StackError(str(error), remedy="Correct the file or the options: mlops new --help") from error
    if not as_json:
        _show(proposal)
    written = []
    if not dry_run:
        with readable_by_all():
            written = write_files(files, origin, proposal)
    if as_json:
        print_json({**asdict(proposal), "files": [str(path) for path in written]})
        return
    if dry_run:
        for path, text in ((files.source, proposal.source_yaml), (files.solution, proposal.solution_yaml)):
            if path is None:
                continue
            console.print(f"\n[bold]{path}/defs.yaml[/bold]", highlight=False, soft_wrap=True)
            console.print(text, markup=False, highlight=False, soft_wrap=True, end="")
        return
    for path in written:
        console.print(f"[green]✓[/green] {markup.escape(str(path))}", highlight=False, soft_wrap=True)
    console.print(f"Next: mlops check {name}, then mlops run {name}, then", highlight=False)
    console.print(f'mlops predict {name} --json "$(mlops predict {name} --example)"', highlight=False, soft_wrap=True)


def _ask(answers: "Answers", proposal: "Proposal", propose: "Callable[[Answers], Proposal]") -> "Proposal":
    """Ask what the rows leave open, one after another, since an answer may open or close others. Raises StackError without a terminal."""
    from mlops_assets.operations.new_solution.answers import open_questions, refuse_open
    from mlops_assets.sources.extract import SourceError

    confirmed: set[str] = set()
    while questions := [found for found in open_questions(proposal.decisions) if found.field not in confirmed]:
        if not _is_terminal():
            refuse_open(proposal.decisions)
        question = questions[0]
        answered = answers.answered(question.field, _answer(question))
        try:
            proposal = propose(answered)
        except (StackError, SourceError) as error:
            # The answers before this one are worth keeping.
            console.print(str(error), style="red", markup=False, highlight=False)
            continue
        answers = answered
        confirmed.add(question.field)
    return proposal


def _is_terminal() -> bool:
    return sys.stdin.isatty() and console.is_terminal


def _answer(question: "Decision") -> str:
    console.print(f"\n[bold]{markup.escape(question.question)}[/bold]", highlight=False)
    console.print(question.reason, style="dim", markup=False, highlight=False)
    if question.choices:
        console.print(f"Choices: {', '.join(question.choices)}", markup=False, highlight=False)
    return str(typer.prompt("", default=question.value, prompt_suffix="> "))


def _show(proposal: "Proposal") -> None:
    """Print what was inferred of each column, and why."""
    shown = Table("column", "type", "role", "why", title=f"{proposal.name}: {proposal.facts.rows:,} rows", title_justify="left")
    columns = [(column, proposal.roles[column]) for column in proposal.roles]
    # Of many features a table shows those that are none, and the first.
    ordered = [entry for entry in columns if entry[1].name != "feature"] + [
        entry for entry in columns if entry[1].name == "feature"
    ]
    for column, role in columns if len(columns) <= _MANY_COLUMNS else ordered[:_MANY_COLUMNS]:
        style = {"left out": "dim", "feature": ""}.get(role.name, "bold")
        shown.add_row(markup.escape(column), proposal.columns[column]["type"], role.name, markup.escape(role.reason), style=style)
    console.print(shown)
    if len(columns) > _MANY_COLUMNS:
        console.print(f"and {len(columns) - _MANY_COLUMNS} more features", style="dim", highlight=False)
    for decision in proposal.decisions:
        console.print(f"{decision.field.replace('_', ' ')}: ", style="bold", end="", highlight=False)
        console.print(f"{_visible(decision.value)}. {decision.reason}", markup=False, highlight=False, soft_wrap=True)
    for note in proposal.notes:
        console.print(f"Note: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _visible(value: str) -> str:
    return {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar", ".": "point", "'": "single", "\\": "backslash"}.get(
        value, value if value == value.strip() else repr(value)
    )
