"""When an object first was in a certain state, by the bench's own clock: seen on a watch, never polled."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection
from http.client import HTTPException
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from testbed.api import Api
from testbed.errors import TestbedError

Json = dict[str, Any]
WATCH_S = 900


class Watch:
    """A context manager: while it is open, `seen` fills with name → time.monotonic() of the first match.

    `path` is that of a collection; `matches` says of an object whether it is in the state that is waited for."""

    def __init__(self, api: Api, path: str, matches: Callable[[Json], bool], **query: str) -> None:
        self._api, self._path, self._matches, self._query = api, path, matches, query
        self.seen: dict[str, float] = {}
        self._changed = threading.Condition()
        self._open = threading.Event()
        self._ending = False
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        if not self._open.wait(10):
            raise TestbedError(f"no watch of {self._path}: {self._trouble or 'no answer'}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True  # the thread, a daemon, ends with the next event or with the process

    def wait(self, names: Collection[str], within_s: float) -> None:
        """Until all of these were seen. Raises TestbedError naming some that were not."""
        self._wait_for(lambda: [name for name in names if name not in self.seen], within_s)

    def wait_for_another(self, known: Collection[str], within_s: float) -> str:
        """The name of the first that is not among the known. Raises TestbedError when none comes."""
        self._wait_for(lambda: [] if set(self.seen) - set(known) else ["another one"], within_s)
        return min(set(self.seen) - set(known), key=self.seen.__getitem__)

    def _wait_for(self, missing: Callable[[], list[str]], within_s: float) -> None:
        deadline = time.monotonic() + within_s
        with self._changed:
            while names := missing():
                left = deadline - time.monotonic()
                if left <= 0 or self._trouble:
                    shown = ", ".join(names[:5])
                    raise TestbedError(
                        f"{self._path}: {len(names)} not seen within {within_s} s: {shown}. {self._trouble}"
                    )
                self._changed.wait(left)

    def _run(self) -> None:
        try:
            version = self._api.get(f"{self._path}?{urlencode({'limit': 1, **self._query})}")["metadata"]
            query = {"watch": 1, "resourceVersion": version["resourceVersion"], "timeoutSeconds": WATCH_S}
            with self._api.lines(f"{self._path}?{urlencode({**query, **self._query})}", idle_s=WATCH_S) as lines:
                self._open.set()
                for line in lines:
                    if self._ending:
                        return
                    self._take(json.loads(line), time.monotonic())
        except (TestbedError, OSError, HTTPException, ValueError) as error:
            self._end(f"{type(error).__name__}: {error}")
        else:
            self._end("the watch has ended")

    def _take(self, event: Json, at: float) -> None:
        obj = event["object"]
        if event["type"] in ("ADDED", "MODIFIED") and self._matches(obj):
            with self._changed:
                self.seen.setdefault(obj["metadata"]["name"], at)
                self._changed.notify_all()

    def _end(self, trouble: str) -> None:
        if not self._ending:
            with self._changed:
                self._trouble = trouble
                self._changed.notify_all()
