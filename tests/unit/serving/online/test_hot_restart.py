"""The listening socket goes on to the next process, whatever those before left behind."""

import os
import socket
from pathlib import Path

import pytest

from mlops_assets.serving.online import hot_restart
from mlops_assets.serving.online.hot_restart import ListenerOffer, Succession, take_listener


def test_a_connection_that_waits_is_taken_by_the_next_process(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        offer = ListenerOffer(tmp_path, listener.fileno)
        with socket.create_connection(listener.getsockname()) as caller:
            caller.sendall(b"waiting")
            taken = take_listener(tmp_path)
            assert taken is not None
            listener.close()
            with taken:
                connection, _ = taken.accept()
                assert connection.recv(7) == b"waiting"
                connection.close()
        offer.withdraw()
    assert take_listener(tmp_path) is None


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "7.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as killed:
        killed.bind(str(left))
        killed.listen()
    assert take_listener(tmp_path) is None
    assert not left.exists()


def test_a_process_that_closes_its_listener_at_that_moment_gives_none(tmp_path: Path) -> None:
    def closed() -> int:
        raise OSError("the listener is closed")

    offer = ListenerOffer(tmp_path, closed)
    assert take_listener(tmp_path) is None
    offer.withdraw()


def test_without_a_successor_a_process_ends_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orphaned = False
    succession = Succession(tmp_path, lambda: orphaned, 2)
    assert not succession.is_over()
    orphaned = True
    assert not succession.is_over()
    monkeypatch.setattr(hot_restart, "monotonic", lambda: os.times().elapsed + 1e9)
    assert succession.is_over()
