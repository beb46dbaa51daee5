"""Runs the stream scorer: `python -m mlops_assets.serving.stream`."""

from mlops_assets.access.credentials import event_stream_url
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.settings import Settings
from mlops_assets.online_store.store import open_online_store
from mlops_assets.serving.bundle_store import open_followed_store
from mlops_assets.serving.live import LiveSolutions
from mlops_assets.serving.process import run
from mlops_assets.serving.stream.server import serve

if __name__ == "__main__":
    settings = Settings.from_environment()
    solutions = LiveSolutions(open_followed_store(settings), open_online_store(settings), Signer(settings.signing_key_file))
    run(lambda stopping: serve(solutions, settings.server_reports_directory, event_stream_url(settings), stopping))
