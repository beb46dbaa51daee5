"""The two endpoints of MLflow that say which versions have aliases, over HTTP."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class AliasRegistry:
    """Answers for `aliases`, of whichever model; a search finds the models `solutions`. A context that ends the server."""

    def __init__(self, *solutions: str) -> None:
        self.aliases: dict[str, int] = {}
        self.requests = 0
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.requests += 1
                parts = urlsplit(self.path)
                asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
                if parts.path.endswith("/search"):
                    # A page has one model.
                    page = int(asked.get("page_token", 0))
                    aliases = [{"alias": alias, "version": str(version)} for alias, version in registry.aliases.items()]
                    answer: dict[str, Any] = {
                        "registered_models": [{"name": name, "aliases": aliases} for name in solutions[page : page + 1]],
                        "next_page_token": str(page + 1) if page + 1 < len(solutions) else "",
                    }
                    found = True
                else:
                    version = registry.aliases.get(asked["alias"])
                    answer, found = {"model_version": {"version": str(version), "tags": []}}, version is not None
                self.send_response(200 if found else 404)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

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
