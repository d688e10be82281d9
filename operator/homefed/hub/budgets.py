"""ConsumerBudgets: sums up what namespaces are charged, and says in each budget's status what follows.

    budgets = Budgets(client, federation, recorder, namespaces=…, homes=…, pools=…, guests=…)
    await budgets.run_pass(now, ledger, settlement.books)   # every few seconds, from the hub operator's tasks
    budgets.refusal("shop")                                 # why a pod of this namespace is not run; None where it may

The chart's admission policy reads `status.exhausted` of the budgets of a pod's namespace, and refuses the pod at its
creation. Pods that were there before and are bound later stay Pending, by `refusal`. Nothing that runs is stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from homefed.api import canonical, dsse, meta, names
from homefed.api.claim_document import MAX_HEADER
from homefed.api.consumer_budget import ConsumerBudgetSpec
from homefed.api.errors import HomefedError, Invalid, NotFound, Refused
from homefed.api.ledger_answers import Statement, StatementEntry
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import budget
from homefed.core.budget import Running, Spent
from homefed.core.compare import same
from homefed.core.rewards import observation
from homefed.hub.books import Book
from homefed.kube.client import KubeClient
from homefed.kube.events import EventRecorder
from homefed.kube.reflector import Key
from homefed.kube.resources import CONSUMERBUDGETS

logger = logging.getLogger(__name__)
Json = dict[str, Any]
Books = Mapping[tuple[str, str], Book]
PAGE: Final = 1000
MOST_PAGES: Final = 10_000


class Statements(Protocol):
    """What budgets need of the ledger client."""

    async def statement(self, account: str, *, before: int | None = None, limit: int = 100) -> Statement: ...


class Budgets:
    """One per hub operator. All mappings are stores by (namespace, name)."""

    def __init__(
        self,
        client: KubeClient,
        federation: str,
        recorder: EventRecorder,
        *,
        namespaces: Mapping[Key, Json],
        homes: Mapping[Key, Json],
        pools: Mapping[Key, Json],
        guests: Mapping[Key, Json],
        on_change: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`on_change` hears of namespaces for which `refusal` says something else from now on."""
        self._client, self._federation, self._recorder, self._on_change = client, federation, recorder, on_change
        self._namespaces, self._homes, self._pools, self._guests = namespaces, homes, pools, guests
        self._spent: dict[tuple[str, int | None], Spent] = {}
        """Account and start of the period → what was counted so far: only newer entries are asked for."""
        self._exhausted: dict[str, str] = {}
        """Namespace → name of a budget of it that is exhausted."""

    def refusal(self, namespace: str) -> str | None:
        """Why a pod of this namespace is not run; None where it may."""
        name = self._exhausted.get(namespace)
        return None if name is None else budget.sentence(namespace, name)

    async def load(self) -> None:
        """What the statuses say, as a hub operator before us has written them."""
        self._remember((await self._client.list(CONSUMERBUDGETS)).items)

    async def run_pass(self, now: datetime, ledger: Statements | None, books: Books) -> None:
        """Every budget; `now` is the hub's clock (aware). While the ledger does not answer, what was said holds.

        `books`: those of settlement, by UID of the Home and pool; what is not open is not estimated.
        """
        found = (await self._client.list(CONSUMERBUDGETS)).items
        under_way = self._under_way(self._consumers(found), books, now)
        counted: set[tuple[str, int | None]] = set()
        for obj in found:
            try:
                counted.add(await self._sum_up(obj, ledger, under_way, now))
            except HomefedError as error:
                where = f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
                logger.warning("budget %s: %s", where, error.message, extra={"reason": error.reason})
        self._remember(found)
        self._spent = {key: spent for key, spent in self._spent.items() if key in counted}

    def _remember(self, found: list[Json]) -> None:
        before, self._exhausted = (
            self._exhausted,
            {
                obj["metadata"]["namespace"]: obj["metadata"]["name"]
                for obj in found
                if (obj.get("status") or {}).get("exhausted")
            },
        )
        for namespace in before.keys() ^ self._exhausted.keys():
            self._on_change(namespace)

    async def _sum_up(
        self, obj: Json, ledger: Statements | None, under_way: Mapping[str, int], now: datetime
    ) -> tuple[str, int | None]:
        """What was counted: account, and start of the period."""
        metadata, before = obj["metadata"], obj.get("status") or {}
        spec = meta.parse(ConsumerBudgetSpec, obj["spec"], where="spec")
        account = self._account(metadata["namespace"])
        begin = budget.period_start(spec.period, now)
        key = account, None if begin is None else int(begin.timestamp())
        spent = self._spent[key] = await _charged(ledger, account, self._spent.get(key) or Spent(key[1]))
        estimated = under_way.get(account, 0)
        after = budget.status(spec, metadata.get("generation", 0), before, spent.amount, estimated, now)
        if not same(before, after):
            if after["exhausted"] and metadata["namespace"] not in self._exhausted:
                # Before the status can be read: a pod that is bound right after it is not run either.
                self._exhausted[metadata["namespace"]] = metadata["name"]
                self._on_change(metadata["namespace"])
            await self._write(obj, after)
            obj["status"] = after
            for reason, message in budget.news(before, after):
                await self._recorder.record(_reference(obj), reason, message, "Warning")
        return key

    def _account(self, namespace: str) -> str:
        found = self._namespaces.get(("", namespace))
        if found is None:
            raise NotFound(f"namespace {namespace} is not known yet")
        return names.consumer_account(self._federation, found["metadata"]["uid"])

    def _consumers(self, budgets: list[Json]) -> set[str]:
        """UIDs of the namespaces that have a budget."""
        found = [self._namespaces.get(("", obj["metadata"]["namespace"])) for obj in budgets]
        return {str(namespace["metadata"]["uid"]) for namespace in found if namespace is not None}

    def _under_way(self, consumers: set[str], books: Books, now: datetime) -> dict[str, int]:
        """Consumer account → µcredit of claims without receipt, and of what pods have reserved since their claims."""
        amounts = budget.reserved(self._federation, self._running(consumers, books), now)
        for book in books.values():
            for pending in book.pending:
                for account, charged in _charges(pending.header):
                    amounts[account] = amounts.get(account, 0) + charged
        return amounts

    def _running(self, consumers: set[str], books: Books) -> Iterator[Running]:
        mailboxes = {
            (home.get("status") or {}).get("mailbox"): str(home["metadata"]["uid"]) for home in self._homes.values()
        }
        grouped: dict[tuple[str, str], list[Json]] = {}
        for (mailbox, _), guest in self._guests.items():
            if guest["spec"]["namespaceUid"] in consumers and mailbox in mailboxes:
                grouped.setdefault((mailboxes[mailbox], guest["spec"]["poolName"]), []).append(guest)
        for (home, pool), guests in grouped.items():
            found, book = self._pools.get(("", pool)), books.get((home, pool))
            if found is None or book is None or book.broken is not None:
                continue
            try:
                spec = meta.parse(SchedulingPoolSpec, found["spec"], where="spec")
            except Invalid:
                continue  # it settles nothing either
            yield Running(spec, [observation(guest) for guest in guests], book.chain.accounts)

    async def _write(self, obj: Json, status: Json) -> None:
        metadata = {key: obj["metadata"][key] for key in ("name", "namespace", "uid")}
        body = {"metadata": metadata, "status": status}
        manager = names.HUB_MANAGER
        await self._client.apply(CONSUMERBUDGETS, body, field_manager=manager, force=True, subresource="status")


async def _charged(ledger: Statements | None, account: str, spent: Spent) -> Spent:
    """From the ledger's statement: newest entries first, back to what is counted already."""
    if ledger is None:
        return spent
    found: list[StatementEntry] = []
    before = None
    for _ in range(MOST_PAGES):
        page = await ledger.statement(account, before=before, limit=PAGE)
        found += page.entries
        before = page.next
        if before is None or spent.is_complete(page.entries):
            return spent.with_(found)
    raise Refused(f"the ledger's statement of {account} has no end", reason="StatementTooLong")


def _charges(header: Json) -> Iterator[tuple[str, int]]:
    """What a claim charges each consumer; a reversal gives it back, a pending claim charges when it is posted."""
    document = canonical.parse(dsse.decode(header["spec"]["envelope"]).payload, limit=MAX_HEADER)
    sign = -1 if document.get("reverses") else 1
    for charge in document["consumers"] if document.get("phase") != "pending" else ():
        yield charge["account"], sign * int(charge["charged"])


def _reference(obj: Json) -> Json:
    return {"apiVersion": names.API_VERSION, "kind": "ConsumerBudget", "metadata": obj["metadata"]}
