"""Runs the stream scorer: `python -m mlops_assets.serving.stream`."""

from mlops_assets.access.credentials import event_stream_url
from mlops_assets.resources.online_store.store import open_online_store
from mlops_assets.serving.process import run
from mlops_assets.serving.stream.server import serve
from mlops_assets.settings import Settings

if __name__ == "__main__":
    settings = Settings.from_environment()
    online_store = open_online_store(settings)
    folders = (settings.serving_directory, settings.server_reports_directory)
    run(lambda stopping: serve(*folders, online_store, event_stream_url(settings), stopping))
