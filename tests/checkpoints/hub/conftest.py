"""A hub on loopback: an HTTP server with the few answers that the hub's client asks for."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

COMMITS = {"main": "a" * 40, "old": "b" * 40}


class Hub(ThreadingHTTPServer):
    """folders: "org/name" -> revision -> folder of files; asked: the paths of all requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.folders: dict[str, dict[str, Path]] = {}
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            self._repository("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main", body)
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body)
        else:
            self._send(200, b"", {}, body)

    def _repository(self, name: str, revision: str, body: bool) -> None:
        if (folder := self._folder(name, revision, body)) is not None:
            files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            siblings = [{"rfilename": path.relative_to(folder).as_posix(), "size": path.stat().st_size} for path in files]
            answer = {"id": name, "modelId": name, "sha": COMMITS[revision], "siblings": siblings}
            self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, body)

    def _file(self, name: str, revision: str, inside: str, body: bool) -> None:
        if (folder := self._folder(name, revision, body)) is not None:
            content = (folder / inside).read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMITS.get(revision, revision)}
            self._send(200, content, headers, body)

    def _folder(self, name: str, revision: str, body: bool) -> Path | None:
        known = self.server.folders.get(name)
        revision = next((branch for branch, commit in COMMITS.items() if commit == revision), revision)
        if name == "org/gated":
            self._send(403, b"", {"X-Error-Code": "GatedRepo"}, body)
        elif known is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
        elif revision not in known:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
        else:
            return known[revision]
        return None

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub without repositories, set as the endpoint of the hub's client, with an empty cache; the current folder is empty."""
    from huggingface_hub import constants

    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
