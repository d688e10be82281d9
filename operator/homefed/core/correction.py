"""What stands in the claim that takes the place of one that was taken back.

Resettle: what the hub knows now, at the prices of now, up to the newest settled window: the other claims of the chain
keep what they accepted. What cannot be seen any more (a guest pod or a report that is gone) stands as it stood, with
code Carried. Forfeit: the same units at price 0, so that nobody pays for them, and no later claim accepts them again.

Every pod, resource and basis of the claim that was taken back has a line, if only of 0 units: what was accepted so far
can then be read from the newest lines, whatever is pruned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from homefed.api.claim_document import ClaimHeader, Line, ReportSignature
from homefed.api.errors import Refused
from homefed.api.report_document import ReportLine
from homefed.core.claim_chain import Chain, Claim
from homefed.core.claim_lines import lines_of
from homefed.core.readings import Report
from homefed.core.rewards import NO_REPORT, Account, Key
from homefed.core.settlement import Inputs
from homefed.core.windows import Window

RESETTLE: Final = "resettle"
FORFEIT: Final = "forfeit"
HOWS: Final = (RESETTLE, FORFEIT)
NONE: Final = Account()
CARRIED: Final = "Carried"
"""As in the claim that was taken back: the pod or its report is not there any more."""
FORFEITED: Final = "Forfeited"
"""Taken back for good, by the organiser's word."""

Lines = tuple[list[Line], list[ReportSignature]]


def check(header: ClaimHeader) -> None:
    """Refused where this claim cannot be taken back."""
    if header.reverses:
        raise Refused("it is a reversal itself: correct the claim that follows it", reason="NotReversible")
    if header.phase == "pending":
        raise Refused("it is pending: it has to be posted or voided first", reason="NotReversible")


def again(inputs: Inputs, before: Claim, how: str) -> Lines:
    """Lines, and signatures of the reports that they rest on. `inputs.chain`: with the reversal of `before`."""
    if how == FORFEIT:
        return list(_forfeited(before, inputs.chain)), [one for part in before.parts for one in part.reports]
    reports = [one for one in inputs.reports if one.digest not in inputs.chain.reports]
    reports = [one for one in reports if one.window.end <= _until(inputs, before)]
    gone = bool(before.reports - {one.digest for one in reports})
    recomputed = _recomputed(inputs, before, reports, gone=gone)
    lines = [*recomputed, *_rest(inputs, before, {_key(line) for line in recomputed}, gone=gone)]
    return sorted(lines, key=lambda line: line.guest_pod), [one for report in reports for one in report.signatures]


def _recomputed(inputs: Inputs, before: Claim, reports: Sequence[Report], *, gone: bool) -> list[Line]:
    """`gone`: not all reports of the claim are there any more."""
    accounts, keys = inputs.chain.accounts, {_key(line) for line in before.lines}
    pods = {key.guest_pod for key in keys}
    # A guest that is settled is looked at again: it was settled by this claim.
    guests = [replace(guest, settled=False) for guest in inputs.guests if guest.uid in pods]
    window = Window(before.window.start, _until(inputs, before))
    found = lines_of(inputs.federation, inputs.pool, accounts, guests, _unread(reports, accounts), window)
    newest = {key for key in keys if accounts.get(key, NONE).sequence == before.header.sequence}
    return [_plain(line) for line in found if not (gone and line.basis == "used" and _key(line) in newest)]


def _until(inputs: Inputs, before: Claim) -> int:
    """End of the newest settled window: the claims since then accepted what is theirs."""
    return max(before.window.end, inputs.chain.end or 0)


def _unread(reports: Sequence[Report], accounts: Mapping[Key, Account]) -> list[Report]:
    """The reports without what lies behind the newest reading that a claim of the chain closed with."""

    def is_news(line: ReportLine) -> bool:
        return int(line.close) > accounts.get(Key(line.guest_pod, line.resource, "used"), NONE).close

    return [replace(report, lines=tuple(filter(is_news, report.lines))) for report in reports]


def _plain(line: Line) -> Line:
    """What was reported for later windows is no missing report."""
    if int(line.accepted) == 0 or NO_REPORT not in line.codes:
        return line
    return line.model_copy(update={"codes": [code for code in line.codes if code != NO_REPORT]})


def _rest(inputs: Inputs, before: Claim, done: set[Key], *, gone: bool) -> Iterator[Line]:
    """A line for each of the claim that nothing was made of: nothing new, or it cannot be made any more."""
    guests, so_far = {guest.uid for guest in inputs.guests}, dict(inputs.chain.accounts)
    for line in before.lines:
        key = _key(line)
        account = so_far.get(key, NONE)
        newest = account.sequence == before.header.sequence
        if key in done:
            continue
        if key.guest_pod not in guests or (gone and line.basis == "used" and newest):
            carried = _as_it_stood(line, account, CARRIED)
        else:
            carried = line.model_copy(update=_NOTHING | {"accepted_before": str(account.accepted)})
            done = done | {key}
        so_far[key] = _with(account, carried)
        yield carried


_NOTHING: Final[dict[str, Any]] = dict.fromkeys(("accepted", "amount", "reported", "bound"), "0") | {
    "reading": None,
    "codes": [],
}


def _forfeited(before: Claim, chain: Chain) -> Iterator[Line]:
    so_far = dict(chain.accounts)
    for line in before.lines:
        account = so_far.get(_key(line), NONE)
        free = _as_it_stood(line, account, FORFEITED).model_copy(
            update={"rate": line.rate.model_copy(update={"micro_credits": 0}), "amount": "0"}
        )
        so_far[_key(line)] = _with(account, free)
        yield free


def _as_it_stood(line: Line, account: Account, code: str) -> Line:
    """The units of the claim that was taken back. Its reading only where no later claim closed with a newer one."""
    codes = sorted({*line.codes, code})[:16]
    reading = line.reading if line.reading is not None and int(line.reading.close) > account.close else None
    return line.model_copy(update={"codes": codes, "accepted_before": str(account.accepted), "reading": reading})


def _with(account: Account, line: Line) -> Account:
    return replace(account, accepted=int(line.accepted_before) + int(line.accepted))


def _key(line: Line) -> Key:
    return Key(line.guest_pod, line.resource, line.basis)
