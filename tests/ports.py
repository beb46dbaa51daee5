"""Ports that nobody listens at. No tests here."""

import socket
from contextlib import ExitStack


def free_ports(count: int) -> list[int]:
    """So many different ports of 127.0.0.1 that are free now."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]
