import io

import click

from mlops_assets.core.named_lines import NamedLines


def written(*texts: str) -> str:
    binary = io.BytesIO()
    stream = NamedLines(io.TextIOWrapper(binary, encoding="utf-8"), "[prod] ")
    assert [stream.write(text) for text in texts] == [len(text) for text in texts]
    return binary.getvalue().decode()


def test_each_line_begins_with_the_name_however_it_is_written() -> None:
    assert (
        written("one\ntwo\n", "", "thr", "ee", "\n", "\n", "é\rfive")
        == "[prod] one\n[prod] two\n[prod] three\n[prod] \n[prod] é\rfive"
    )


def test_it_is_a_stream_of_text_to_click() -> None:
    binary = io.BytesIO()
    stream = NamedLines(io.TextIOWrapper(binary, encoding="utf-8"), "[prod] ")
    click.echo("one", file=stream)
    assert binary.getvalue() == b"[prod] one\n"
