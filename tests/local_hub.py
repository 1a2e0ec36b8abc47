"""A hub on this machine: repositories of files in; an HTTP server that answers as huggingface.co does out.

It stands at the seam that huggingface_hub itself offers, HF_ENDPOINT, so that all of the real loading code runs.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_thesecrettoken"


@dataclass
class LocalHub:
    """What the server knows, and what it was asked. `cut` breaks the connection after so many bytes, once per file."""

    commits: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    is_gated: bool = False
    cut: int = 0
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Commit files to a branch and return the commit."""
        commit = sha256(repr(sorted(files.items())).encode()).hexdigest()[:40]
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit

    def commit(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


@contextmanager
def serve(repo: str) -> Iterator[LocalHub]:
    """Serve one repository, `org/name`, until the block ends."""
    hub = LocalHub()
    broken: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            ranged = self.headers.get("Range", "")
            if repo in self.path:  # and not what huggingface_hub asks on its own behalf
                hub.asked.append(f"{self.command} {self.path} {ranged}".strip())
            if self.path.startswith(f"/api/models/{repo}/revision/"):
                self.model_info(self.path.rpartition("/")[2])
            elif self.path.startswith(f"/{repo}/resolve/"):
                revision, _, name = self.path.removeprefix(f"/{repo}/resolve/").partition("/")
                self.file(revision, name, ranged)
            else:
                self.refuse(401, "RepoNotFound")

        def model_info(self, revision: str) -> None:
            commit = hub.commit(revision)
            if commit is None:
                return self.refuse(404, "RevisionNotFound")
            siblings = [{"rfilename": name} for name in hub.commits[commit]]
            info = {"id": repo, "sha": commit, "private": False, "tags": [], "downloads": 0, "siblings": siblings}
            return self.answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

        def file(self, revision: str, name: str, ranged: str) -> None:
            commit = hub.commit(revision)
            if hub.is_gated:
                given = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                return self.refuse(403 if given else 401, "GatedRepo")
            if commit is None:
                return self.refuse(404, "RevisionNotFound")
            if name not in hub.commits[commit]:
                return self.refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
            data = hub.commits[commit][name]
            headers = {"X-Repo-Commit": commit, "ETag": f'"{sha256(data).hexdigest()}"'}
            if ranged:
                start = int(ranged.removeprefix("bytes=").rstrip("-").split("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                return self.answer(206, data[start:], headers)
            if hub.cut and len(data) > hub.cut and self.command == "GET" and name not in broken:
                broken.add(name)
                self.answer(200, data, headers, hub.cut)
                self.close_connection = True
                return self.connection.close()
            return self.answer(200, data, headers)

        def refuse(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
            self.answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

        def answer(self, status: int, data: bytes, headers: Mapping[str, str], upto: int | None = None) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data[:upto])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
