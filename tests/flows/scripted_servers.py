"""Servers that answer as a test wants it: an API server that shows nothing where objects are, a ledger that refuses."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from testbed.cluster import Cluster
from testbed.kubeconfig import token_user, write_kubeconfig

FORWARDED = ("Authorization", "Accept", "Content-Type")
CHUNK = 65_536


@contextmanager
def forgetful(cluster: Cluster, plurals: set[str], namespace: str, account: str) -> Iterator[Path]:
    """A kubeconfig of a ServiceAccount that reaches the cluster through a server which answers every list of these
    kinds with an empty one, and is honest otherwise: single objects, watches and writes pass."""
    tls = ssl.create_default_context(cafile=str(cluster.ca_path))

    class Forward(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            upstream = http.client.HTTPSConnection(cluster.host, cluster.spec.ports.apiserver, context=tls, timeout=400)
            headers = {name: self.headers[name] for name in FORWARDED if name in self.headers}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            if self.command == "GET" and answer.status == 200 and _is_list(self.path, plurals):
                listed = json.loads(answer.read()) | {"items": []}
                listed["metadata"].pop("continue", None)
                self._answer(answer, iter([json.dumps(listed).encode()]))
            else:
                self._answer(answer, iter(lambda: answer.read1(CHUNK), b""))
            upstream.close()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def _answer(self, answer: http.client.HTTPResponse, chunks: Iterator[bytes]) -> None:
            self.send_response(answer.status)
            for name in ("Content-Type", "Date", "Retry-After"):
                if value := answer.getheader(name):
                    self.send_header(name, value)
            self.end_headers()
            try:
                for chunk in chunks:
                    self.wfile.write(chunk)
                    self.wfile.flush()
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Silent: the API server has its audit log."""

    with _serving(Forward) as port:
        path = cluster.folder / f"forgetful.{account}.kubeconfig"
        user = token_user(cluster.token_for(namespace, account))
        yield write_kubeconfig(path, f"http://127.0.0.1:{port}", cluster.ca_path, user, namespace)


@contextmanager
def refusing_ledger(port: int) -> Iterator[list[str]]:
    """A ledger at this port that knows no claim and answers every header with 409; yields the ids that were sent."""
    sent: list[str] = []

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(404, {"status": 404, "reason": "NotFound", "detail": "no such claim"})

        def do_POST(self) -> None:
            items = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))["items"]
            sent.extend(item["id"] for item in items if item["kind"] == "claim")
            self._answer(200, {"items": [_refused(item) for item in items]})

        def _answer(self, status: int, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silent."""

    with _serving(Refuse, port):
        yield sent


def _refused(item: dict[str, object]) -> dict[str, object]:
    if item["kind"] == "part":
        return {"status": 200, "claim": item["claim"], "part": item["part"], "digest": "0" * 64}
    return {"status": 409, "reason": "ClaimConflict", "detail": "other bytes are stored under this id"}


def _is_list(path: str, plurals: set[str]) -> bool:
    parts = urlsplit(path)
    return parts.path.rpartition("/")[2] in plurals and "watch" not in parse_qs(parts.query)


@contextmanager
def _serving(handler: Callable[..., BaseHTTPRequestHandler], port: int = 0) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
