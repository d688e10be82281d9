"""A server on loopback that answers as a script says, for what no real Prometheus does on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

from homefed.api.errors import HomefedError
from homefed.core.samples import RawSeries
from homefed.core.windows import Window
from homefed.metering.prometheus import PrometheusConfig, PrometheusSource

T0 = 1_767_225_600
HOUR = Window(T0, T0 + 3600)

Form = dict[str, str]


@dataclass(frozen=True)
class Answer:
    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)


Script = Callable[[Form], Answer]


@dataclass
class Seen:
    forms: list[Form] = field(default_factory=list)
    authorization: list[str] = field(default_factory=list)
    encodings: list[str] = field(default_factory=list)


@contextmanager
def answering(script: Script) -> Iterator[tuple[str, Seen]]:
    """Its address, and what it was asked."""
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            seen.forms.append(form)
            seen.authorization.append(self.headers.get("Authorization", ""))
            seen.encodings.append(self.headers.get("Accept-Encoding", ""))
            answer = script(form)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body.encode())))
            self.end_headers()
            self.wfile.write(answer.body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def is_counting(form: Form) -> bool:
    return form["query"].startswith("sum(")


def vector(value: str, more: str = "") -> str:
    result = f'[{{"metric":{{}},"value":[{T0}.5,"{value}"]}}]'
    return f'{{"status":"success"{more},"data":{{"resultType":"vector","result":{result}}}}}'


def matrix(result: str = "[]", more: str = "") -> str:
    return f'{{"status":"success"{more},"data":{{"resultType":"matrix","result":{result}}}}}'


def whole(form: Form) -> Answer:
    """Nothing was measured, and this is all."""
    return Answer(200, vector("0") if is_counting(form) else matrix())


def always(status: int, body: str, headers: dict[str, str] | None = None) -> Script:
    """The same to every range vector; counted is one sample."""
    answer = Answer(status, body, headers or {})
    return lambda form: Answer(200, vector("1")) if is_counting(form) and status == 200 else answer


async def outcome(url: str, **options: object) -> list[RawSeries] | HomefedError:
    """What one fetch of an hour gave; one attempt, unless told otherwise."""
    config = PrometheusConfig(url, **{"attempts": 1, **options})  # type: ignore[arg-type]
    source = PrometheusSource(config)
    try:
        return await source.fetch(HOUR, at=HOUR.end, offset_ms=0)
    except HomefedError as error:
        return error
    finally:
        source.close()
