import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prediction_records import prediction_record

from mlops_assets.serving import spool
from mlops_assets.serving.prediction_record import decode_record
from mlops_assets.serving.spool import SpoolError, SpoolWriter, segments

WRITE_AND_DIE = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from prediction_records import prediction_record
from mlops_assets.serving.spool import SpoolWriter
writer = SpoolWriter(Path(sys.argv[1]), durable=True)
for number in range(100):
    writer.append(prediction_record(number))
os.kill(os.getpid(), signal.SIGKILL)
"""


def numbers(directory: Path) -> Iterator[int]:
    """The numbers of the records that a shipper would read, in its order."""
    for segment in segments(directory):
        while lines := segment.read(1000):
            for line in lines:
                assert line.payload is not None
                yield int(decode_record(line.payload).prediction_id.rpartition(":")[2])
            segment.shipped = lines[-1].end


def test_every_thread_s_records_are_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 5000)
    with SpoolWriter(tmp_path, durable=True) as writer, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: writer.append(prediction_record(number)), range(500)))
    assert sorted(numbers(tmp_path)) == list(range(500))
    assert len(segments(tmp_path)) > 10


def test_what_a_killed_writer_appended_is_there(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(tmp_path), str(Path(__file__).parents[2])], check=False)
    assert killed.returncode == -9
    assert list(numbers(tmp_path)) == list(range(100))
    [segment] = segments(tmp_path)
    segment.mark_shipped(segment.path.stat().st_size)
    assert segment.remove_if_done() is None
    assert list(tmp_path.iterdir()) == []


def test_a_segment_in_use_stays(tmp_path: Path) -> None:
    with SpoolWriter(tmp_path, durable=True) as writer:
        writer.append(prediction_record(1))
        [segment] = segments(tmp_path)
        segment.mark_shipped(segment.read(1 << 20)[-1].end)
        segment.remove_if_done()
        writer.append(prediction_record(2))
        [again] = segments(tmp_path)
        [line] = again.read(1 << 20)
        assert line.payload is not None
        assert decode_record(line.payload) == prediction_record(2)


@given(
    tail=st.binary(max_size=300)
    | st.integers(1, 200).map(lambda zeros: b"\0" * zeros)
    | st.integers(1, 60).map(lambda cut: b"00000000 {"[:cut])
)
def test_no_tail_costs_a_record_before_it_or_is_lost(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    directory = tmp_path_factory.mktemp("spool")
    with SpoolWriter(directory, durable=True) as writer:
        for number in range(3):
            writer.append(prediction_record(number))
    [path] = directory.glob("*.segment")
    with path.open("ab") as file:
        file.write(tail)
    [segment] = segments(directory)
    whole, kept = [], b""
    while lines := segment.read(100):
        whole += [line.payload for line in lines if line.payload is not None]
        kept += b"".join(line.data + b"\n" for line in lines if line.payload is None)
        segment.mark_shipped(lines[-1].end)
    if aside := segment.remove_if_done():
        kept += aside.read_bytes()
    assert [decode_record(payload) for payload in whole] == [prediction_record(number) for number in range(3)]
    assert kept == tail
    assert not path.exists()


def test_a_full_disk_is_an_error_and_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SpoolWriter(tmp_path, durable=True) as writer:
        writer.append(prediction_record(1))
        monkeypatch.setattr(os, "write", lambda file, line, write=os.write: write(file, line[: len(line) // 2]))
        with pytest.raises(SpoolError, match="Make room"):
            writer.append(*map(prediction_record, (2, 3, 4)))
        monkeypatch.undo()
        writer.append(prediction_record(5))
    assert list(numbers(tmp_path)) == [1, 5]


def test_without_room_no_segment_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MINIMUM_FREE_BYTES", 1 << 60)
    with SpoolWriter(tmp_path, durable=True) as writer, pytest.raises(SpoolError, match="make room"):
        writer.append(prediction_record(1))
