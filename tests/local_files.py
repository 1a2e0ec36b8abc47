"""A web server on this machine: files by path in; answers of the kinds that real servers give out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class LocalFiles:
    """What the server holds, how it behaves, and what it was asked.

    has_ranges: whether it knows Range; has_length: whether it says how long a file is
    cuts:       after how many bytes it ends the connection, one for each answer to come
    statuses:   what it answers to come instead of a file; redirects: path -> where it sends the client
    asked:      path and Range of each request; `authorization` of the last one
    """

    files: dict[str, bytes] = field(default_factory=dict)
    has_ranges: bool = True
    has_length: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    authorization: str | None = None
    port: int = 0

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"


@contextmanager
def serve() -> Iterator[LocalFiles]:
    """Serve files until the block ends."""
    local = LocalFiles()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            name, ranged = self.path[1:].partition("?")[0], self.headers.get("Range", "")
            local.asked.append(f"{name} {ranged}".strip())
            local.authorization = self.headers.get("Authorization")
            if local.statuses:
                return self.answer(local.statuses.pop(0), b"no", {})
            if name in local.redirects:
                return self.answer(302, b"", {"Location": local.redirects[name]})
            if name not in local.files:
                return self.answer(404, b"no such file", {})
            data = local.files[name]
            if not ranged or not local.has_ranges:
                return self.answer(200, data, {})
            start = int(ranged.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return self.answer(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})

        def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            length = {"Content-Length": str(len(data))} if local.has_length else {"Connection": "close"}
            for name, value in {**headers, **length}.items():
                self.send_header(name, value)
            self.end_headers()
            is_cut = status in (200, 206) and bool(local.cuts)
            self.wfile.write(data[: local.cuts.pop(0)] if is_cut else data)
            if is_cut or not local.has_length:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    local.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield local
    finally:
        server.shutdown()
        server.server_close()
