"""A PostgreSQL cluster of the tests' own: Debian's programs, a folder of its own, a unix socket and no port.

PostgreSQL refuses to run as root; root's runs therefore use an unprivileged account of the system.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import asyncpg

from testbed.errors import ProcessFailed, Unavailable
from testbed.process import Process
from testbed.workspace import workspace

ADMIN = "admin"
OWNER = "ledger_owner"
SERVICE = "ledger_service"
START_WITHIN_S = 180.0
STOP_WITHIN_S = 120.0
_ACCOUNTS = ("postgres", "nobody")


class Postgres:
    """One cluster in `folder`. Not durable by default: its data does not outlive the run, only a killed server."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        """`durable` has every commit on the disk before it is answered. Raises Unavailable without PostgreSQL."""
        self._programs = programs()
        self._data, self._socket = folder / "data", folder / "socket"
        self._as = _unprivileged()
        self._numbers = itertools.count(1)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket),
            "unix_socket_permissions": "0700",
            "fsync": "on" if durable else "off",
            "logging_collector": "off",
            "max_connections": "50",
        }
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        argv = [*self._as, str(self._programs / "postgres"), "-D", str(self._data), *options]
        self.process = Process("postgres", argv, folder / "postgres.log", cwd=folder)
        self._folder = folder

    def start(self) -> Postgres:
        """Makes the cluster at the first start. Raises ProcessFailed with the log's tail."""
        if not self._data.exists():
            self._create()
        self.process.start()
        self.process.wait_until(self._answers, START_WITHIN_S)
        self.psql("postgres", "-c", _ROLES)
        return self

    def stop(self) -> None:
        """Fast shutdown: open connections are ended."""
        self.process.signal(signal.SIGINT)
        try:
            self.process.wait(STOP_WITHIN_S)
        except ProcessFailed:
            self.process.kill()

    def __enter__(self) -> Postgres:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def url(self, database: str, role: str = ADMIN) -> str:
        return f"postgresql:///{database}?host={self._socket}&user={role}"

    async def new_database(self) -> Database:
        """An empty database that OWNER owns and SERVICE may connect to."""
        name = f"ledger_{next(self._numbers)}"
        connection = await asyncpg.connect(self.url("postgres"))
        try:
            await connection.execute(f"CREATE DATABASE {name} OWNER {OWNER}")
        finally:
            await connection.close()
        return Database(self, name)

    def psql(self, database: str, *arguments: str) -> str:
        """Runs psql as the administrator, stopping at the first error. Raises ProcessFailed with what it said."""
        command = [*self._as, str(self._programs / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1"]
        return _run([*command, "-d", self.url(database), *arguments], self._folder)

    def dump(self, database: Database, file: Path, *options: str) -> None:
        """What an organiser backs up, while the database is in use. Raises ProcessFailed."""
        command = [*self._as, str(self._programs / "pg_dump"), *options, "-d", self.url(database.name)]
        file.write_text(_run(command, self._folder), encoding="utf-8")

    def restore(self, database: Database, file: Path) -> None:
        """Into an empty database. Raises ProcessFailed."""
        copy = self._data / "restored.sql"
        copy.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
        copy.chmod(0o644)
        self.psql(database.name, "-o", os.devnull, "-f", str(copy))
        copy.unlink()

    def _create(self) -> None:
        for folder in (self._data, self._socket):
            folder.mkdir(mode=0o700, parents=True)
        if self._as:
            _hand_over(self._folder, [self._data, self._socket])
        initdb = str(self._programs / "initdb")
        arguments = ["-D", str(self._data), "-U", ADMIN, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        _run([*self._as, initdb, *arguments], self._folder)

    def _answers(self) -> bool:
        try:
            self.psql("postgres", "-c", "SELECT 1")
        except ProcessFailed:
            return False
        return True


class Database:
    """One database of a running cluster."""

    def __init__(self, server: Postgres, name: str) -> None:
        self.server = server
        self.name = name
        self.service = server.url(name, SERVICE)
        self.owner = server.url(name, OWNER)
        self.admin = server.url(name, ADMIN)


_ROLES = "".join(
    f"DO $$ BEGIN IF to_regrole('{role}') IS NULL THEN CREATE ROLE {role} LOGIN; END IF; END $$;"
    for role in (OWNER, SERVICE)
)


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """A running cluster in a workspace of its own, below TMPDIR."""
    with workspace(Path(tempfile.gettempdir())) as folder, Postgres(folder / "pg", durable=durable) as running:
        yield running


def programs() -> Path:
    """The folder with PostgreSQL's programs, of the newest version. Raises Unavailable when there is none."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = str(installed[-1]) if installed else shutil.which("initdb")
    if found is None:
        raise Unavailable("PostgreSQL is not installed: apt-get install postgresql, or make system")
    return Path(found).resolve().parent


def _unprivileged() -> list[str]:
    """The command that drops root; the kernel's death signal is set anew, because changing the user clears it."""
    if os.geteuid() != 0:
        return []
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = next(known[name] for name in _ACCOUNTS if name in known)
    ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return ["setpriv", *ids, "--pdeathsig", "KILL", "--"]


def _hand_over(folder: Path, owned: Sequence[Path]) -> None:
    """The account gets its folders, and may pass through those above."""
    user = next(entry for name in _ACCOUNTS for entry in pwd.getpwall() if entry.pw_name == name)
    for path in owned:
        os.chown(path, user.pw_uid, user.pw_gid)
    for path in (folder, folder.parent):
        path.chmod(path.stat().st_mode | 0o011)


def _run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise ProcessFailed(f"{command[-1]}: {done.stdout}{done.stderr}")
    return done.stdout
