"""A real HTTP server over a folder, whose answers may be cut off, for tests of sources that are URLs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from http_servers import running


class FileServer(ThreadingHTTPServer):
    """Serves the files of `folder`. Of one in `cut` the answer ends after half of the bytes that it promises."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cut: set[str] = set()
        self.has_ranges = True
        super().__init__(("127.0.0.1", 0), _Handler)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        name = unquote(self.path).lstrip("/").partition("?")[0]
        path = self.server.folder / name
        if not path.is_file():
            self.send_error(404)
            return
        content, status, place = path.read_bytes(), 200, ""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.server.has_ranges:
            first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            status, place, content = 206, f"bytes {first}-{last}/{len(content)}", content[first : last + 1]
        self.send_response(status)
        if place:
            self.send_header("Content-Range", place)
        if self.server.has_ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not with_body:
            return
        if name in self.server.cut:
            self.close_connection = True
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[FileServer]:
    """A server over `folder` that runs within the block."""
    with running(FileServer(folder)) as server:
        yield server
