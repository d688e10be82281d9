"""Wiring of `homefed ledger`: one process, one database, one writer."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from homefed.api.dsse import fingerprint
from homefed.api.errors import Invalid, Refused
from homefed.core.checkpoint import origin_of
from homefed.kube.client import KubeClient
from homefed.kube.listening import listening
from homefed.ledger import queries, retention
from homefed.ledger.access import Access, ConsumerRights, NamespaceReviews
from homefed.ledger.auth import Authenticator, StaticTokens, TokenReviews
from homefed.ledger.books_check import origin_in
from homefed.ledger.config import Config, Place
from homefed.ledger.home_keys import HomeKeys
from homefed.ledger.http import Service
from homefed.ledger.intake import Intake
from homefed.ledger.keys import signing_key
from homefed.ledger.log import Log
from homefed.ledger.metrics import Metrics
from homefed.ledger.postgres import PostgresStore
from homefed.ledger.reading import Reading, spare_cores, workers
from homefed.ledger.signatures import HomeSignatures
from homefed.ledger.sqlite import SqliteStore
from homefed.ledger.store import Store
from homefed.ledger.tiles import Tiles
from homefed.ledger.writer import Writer

SWITCH_SECONDS: Final = 0.001
"""The store's threads hand the interpreter over so often: a fifth of Python's default, for shorter batches."""
_log = logging.getLogger(__name__)

Clock = Callable[[], int]


async def run(config: Config, ready: asyncio.Event | None = None) -> None:
    """Serve until SIGTERM or SIGINT; what was taken in is answered first. `ready` is set once requests are served.

    Errors: Refused for a configuration that cannot work; StoreFailed when the database fails (then exit non-zero and
    be restarted: what was acknowledged is there, what was not is sent again).
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    context = _tls(config)
    async with AsyncExitStack() as stack:
        authenticator, consumers = await stack.enter_async_context(_authentication(config))
        store, log = await stack.enter_async_context(opened(config, config.federation))
        read = await stack.enter_async_context(workers(config.federation, config.hub_keys, spare_cores()))
        service, writer = _service(config, store, log, read, authenticator, consumers)
        await _show(store, log, service.metrics)
        await stack.enter_async_context(_forgetting(config, writer, service))
        await stack.enter_async_context(listening(service.application(), config.host, config.port, ssl_context=context))
        _log.info("ledger of %s listens on %s:%d, %s", config.federation, config.host, config.port, log.vkey.text())
        await _write(writer, ready)


@asynccontextmanager
async def opened(place: Place, federation: str | None = None) -> AsyncIterator[tuple[Store, Log]]:
    """The books and their log, checked against each other; without a federation, that which they were kept for.

    Errors: Refused, with a remedy; StoreFailed.
    """
    store = await _open_store(place)
    try:
        async with store.reading() as reader:
            newest = await reader.checkpoint()
        federation = federation or _federation(newest)
        place.state.mkdir(parents=True, exist_ok=True)
        key = signing_key(place.key, create=newest is None)
        await store.bind(federation, fingerprint(key.public_key().public_bytes_raw()))
        async with store.reading() as reader:
            log = await Log.open(reader, origin_of(federation), key, place.state)
        try:
            yield store, log
        finally:
            log.close()
    finally:
        await store.close()


def _federation(newest: tuple[int, str] | None) -> str:
    if newest is None:
        raise Refused("nothing was ever signed here: there are no books", reason="NoBooks")
    return origin_in(newest[1]).removeprefix(origin_of(""))


async def _open_store(place: Place) -> Store:
    if place.database is not None:
        return await SqliteStore.open(place.database)
    return await PostgresStore.open(*place.urls())


def _service(
    config: Config,
    store: Store,
    log: Log,
    read: Reading,
    authenticator: Authenticator,
    consumers: ConsumerRights | None,
) -> tuple[Service, Writer]:
    metrics, homes = Metrics(), HomeKeys(config.home_keys)

    def observe(items: int, leaves: int, seconds: float) -> None:
        metrics.committed(items, seconds)
        if leaves:
            metrics.signed(log.published.size, now())

    writer = Writer(store, log, clock=now, observe=observe)
    intake = Intake(read, store, log, writer)
    signatures = HomeSignatures(homes, log.origin)
    access = Access(
        config.federation, config.submitters, config.certificate_names, authenticator, signatures, consumers
    )
    return Service(store, log, intake, access, Tiles(log, store, homes, now), metrics), writer


def now() -> int:
    """Seconds since the epoch."""
    return int(time.time())


async def _show(store: Store, log: Log, metrics: Metrics) -> None:
    """Size and age of the newest checkpoint, before this process has signed one."""
    size = log.published.size
    async with store.reading() as reader:
        newest = await reader.entries(size - 1, 1) if size else []
        stored = await reader.leaf(queries.identity_of(newest[0])) if newest else None
    metrics.signed(size, stored.time if stored else 0)


async def _write(writer: Writer, ready: asyncio.Event | None) -> None:
    """Run the writer until a signal has come and everything queued is answered."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, writer.stop)
    try:
        if ready is not None:
            ready.set()
        await writer.run()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


@asynccontextmanager
async def _forgetting(config: Config, writer: Writer, service: Service) -> AsyncIterator[None]:
    """Deletes old lines parts meanwhile; a store that fails there ends the service as well."""
    if config.lines_retention is None:
        yield
        return
    task = asyncio.create_task(
        retention.keep_forgetting(service.store, config.lines_retention, now, service.metrics), name="retention"
    )
    task.add_done_callback(lambda _: writer.stop())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await task


@asynccontextmanager
async def _authentication(config: Config) -> AsyncIterator[tuple[Authenticator, ConsumerRights | None]]:
    if config.auth == "static":
        if config.tokens is None:
            raise Invalid("tokens: auth static needs a file of tokens and usernames")
        yield StaticTokens(config.tokens), None
        return
    client = KubeClient.from_kubeconfig(config.kubeconfig) if config.kubeconfig else KubeClient.from_incluster()
    async with client:
        yield TokenReviews(client), NamespaceReviews(client)


def _tls(config: Config) -> ssl.SSLContext | None:
    """None serves plain HTTP: behind a proxy that terminates TLS, or on loopback."""
    if config.tls_certificate is None:
        if config.client_ca is not None:
            raise Invalid("client_ca: client certificates need TLS; give tls_certificate and tls_key")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"tls_certificate, tls_key: {config.tls_certificate}: {error}") from error
    if config.client_ca is not None:
        _accept_clients(context, config.client_ca)
    return context


def _accept_clients(context: ssl.SSLContext, authority: Path) -> None:
    """A certificate may be shown and is then verified; who shows none has other ways in."""
    try:
        context.load_verify_locations(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"client_ca: {authority}: {error}") from error
    context.verify_mode = ssl.CERT_OPTIONAL
