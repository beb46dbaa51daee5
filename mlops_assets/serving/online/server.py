"""The processes of the online server: one that starts, watches and replaces those that answer.

uvicorn's: a process that ended is started again, SIGTERM lets all end after their last answer, and SIGHUP replaces one after another,
each when the new one is ready.
"""

import uvicorn
from uvicorn.supervisors import Multiprocess

from mlops_assets.core.settings import Settings
from mlops_assets.serving.online.metrics import share_between_processes
from mlops_assets.serving.online.protocol import JoiningProtocol

_END_SECONDS = 10
"""How long a process waits for its last answers."""

_KEEP_ALIVE_SECONDS = 75


def serve(settings: Settings) -> None:
    """Serve on the loopback interface until SIGTERM or SIGINT."""
    share_between_processes(settings.serving_metrics_directory)
    config = uvicorn.Config(
        "mlops_assets.serving.online.application:create",
        factory=True,
        http=JoiningProtocol,
        host="127.0.0.1",
        port=settings.serving_port,
        workers=settings.serving_processes,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Nobody reads the caller's address.
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_END_SECONDS,
        timeout_worker_healthcheck=30,
    )
    Multiprocess(config, sockets=[config.bind_socket()]).run()


def main() -> None:
    """Serve this installation."""
    serve(Settings.from_environment())


if __name__ == "__main__":
    main()
