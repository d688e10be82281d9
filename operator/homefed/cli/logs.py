"""Structured logs: one JSON object per line for machines, or plain lines for people."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_KOPF: Final = frozenset({"settings", "k8s_skip"})
"""What kopf adds to its records and is of use to kopf only."""


class JsonFormatter(logging.Formatter):
    """ts (RFC 3339, UTC, ms), level, logger, message, `error` (traceback), and what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD | _KOPF | line.keys()}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logging(level: str = "info", json: bool = True) -> None:
    """Log to standard error from `level` (debug, info, warning, error) on; replaces earlier handlers.

    ValueError, naming the choices, for an unknown level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"log level {level!r}: choose debug, info, warning or error")
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if json else plain)
    logging.basicConfig(level=number, handlers=[handler], force=True)
    # Access lines of the HTTP libraries would bury ours; their warnings still show.
    for noisy in ("aiohttp.access", "asyncio", "urllib3"):
        logging.getLogger(noisy).setLevel(max(number, logging.WARNING))
