"""The one endpoint of MLflow that says which version has an alias, over HTTP."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class AliasRegistry:
    """Answers for `aliases`, of whichever model; a context that ends the server."""

    def __init__(self) -> None:
        self.aliases: dict[str, int] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                version = registry.aliases.get(parse_qs(urlsplit(self.path).query)["alias"][0])
                self.send_response(200 if version else 404)
                self.end_headers()
                self.wfile.write(json.dumps({"model_version": {"version": str(version), "tags": []}}).encode())

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
