"""The processes of the online server: one that starts, watches and replaces those that answer.

uvicorn's: a process that ended is started again, SIGTERM lets all end after their last answer, and SIGHUP replaces one after another,
each when the new one is ready. Where somebody starts the server again whenever it ends, its processes answer until the next ones do.
"""

import os
import signal

import uvicorn
from uvicorn.supervisors import Multiprocess

from mlops_assets.access.tls import check_listening, server_options
from mlops_assets.core.named_lines import name_lines
from mlops_assets.core.settings import Settings
from mlops_assets.serving.online.hot_restart import take_listener
from mlops_assets.serving.online.metrics import share_between_processes
from mlops_assets.serving.online.protocol import JoiningProtocol

_END_SECONDS = 10
"""How long a process waits for its last answers."""

_KEEP_ALIVE_SECONDS = 75


class WatchedProcesses(Multiprocess):
    """The processes that answer, of which the end of each is noticed at once."""

    def keep_subprocess_alive(self) -> None:
        """Replace each that ended, or does not say that it is alive."""
        for process in self.processes:
            # While this end is open too, nothing tells that a process ended after it was asked whether it is alive: uvicorn would wait
            # for its answer as long as for that of a busy one, and heed no other process and no signal meanwhile.
            process.child_conn.close()
        super().keep_subprocess_alive()


def serve(settings: Settings, *, restarted: bool) -> None:
    """Serve until SIGTERM or SIGINT.

    `restarted` tells that whoever started this process does so again when it ends, and ends its group of processes for good.
    Raises StackError where the server may not listen without TLS.
    """
    name_lines()
    check_listening(settings.listening)
    share_between_processes(settings.serving_metrics_directory)
    config = uvicorn.Config(
        f"mlops_assets.serving.online.application:{'create_restarted' if restarted else 'create'}",
        factory=True,
        http=JoiningProtocol,
        host=settings.listening.address,
        port=settings.serving_port,
        workers=settings.serving_processes,
        log_level="warning",
        log_config=None,  # its handlers would be made before the lines are named
        access_log=False,
        server_header=False,
        # Nobody reads the caller's address.
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_END_SECONDS,
        timeout_worker_healthcheck=30,
        **server_options(settings.listening),
    )
    listener = take_listener(settings.server_reports_directory) if restarted else None
    processes = WatchedProcesses(config, sockets=[listener or config.bind_socket()])
    if restarted:
        # The processes that answer go on. uvicorn would end them, and heeds no signal while one starts.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    processes.run()


def main() -> None:
    """Serve this installation, as the stack's supervisor has it."""
    serve(Settings.from_environment(), restarted=True)


if __name__ == "__main__":
    main()
