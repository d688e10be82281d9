"""How a claim is made: the next one of a chain from priced lines, and the one that takes another back."""

from __future__ import annotations

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from homefed.api import canonical
from homefed.api.claim_document import (
    LINES_PER_PART,
    MAX_CONSUMERS,
    MAX_HEADER,
    MAX_PART,
    MAX_PARTS,
    Charge,
    ClaimHeader,
    Line,
    LinesPart,
    Phase,
    ReportSignature,
    Unit,
    UnitTotal,
    claim_id,
)
from homefed.api.errors import Refused
from homefed.api.rate_card import Basis
from homefed.core import held
from homefed.core.claim_chain import REPORTS_PER_PART, Chain, Claim, Payee
from homefed.core.held import Held
from homefed.core.metering import METER_VERSION
from homefed.core.rounding import split
from homefed.core.windows import Window


def build(
    payee: Payee,
    chain: Chain,
    window: Window,
    lines: Sequence[Line],
    reports: Sequence[ReportSignature],
    secret: bytes,
    *,
    phase: Phase = "posted",
    revision: int = 0,
) -> Claim:
    """The next claim of the chain. Equal arguments give equal bytes: the salts are HMACs under `secret`.

    Errors: Refused with reason ClaimTooLarge where it would be more than a leaf of the ledger can hold.
    """
    identity = claim_id(
        federation=payee.federation,
        pool=payee.pool,
        account=payee.account,
        window_start=window.start_text,
        window_end=window.end_text,
        revision=revision,
    )
    consumers, chunks = _charges(lines), _chunks(lines)
    _check_size(payee, window, "consumers", len(consumers), MAX_CONSUMERS)
    _check_size(payee, window, "lines parts", len(chunks), MAX_PARTS)
    parts = _parts(identity, chunks, reports, secret)
    bodies = tuple(part.canonical() for part in parts)
    header = ClaimHeader(
        id=identity,
        federation=payee.federation,
        pool=payee.pool,
        account=payee.account,
        window_start=window.start_text,
        window_end=window.end_text,
        revision=revision,
        phase=phase,
        sequence=chain.sequence + 1,
        previous_digest=chain.head,
        rate_card_digest=payee.rate_card_digest,
        consumers=consumers,
        **_money(payee, chain, window, sum(int(charge.charged) for charge in consumers), phase),
        line_count=len(lines),
        parts=[hashlib.sha256(body).hexdigest() for body in bodies],
        evidence_digest=canonical.digest([report.digest for report in reports]) if reports else "",
        meter_version=METER_VERSION,
    )
    document = canonical.canonical(header.dump())
    _check_size(payee, window, "bytes of header", len(document), MAX_HEADER)
    return Claim(header, hashlib.sha256(document).hexdigest(), tuple(parts), bodies)


def _money(payee: Payee, chain: Chain, window: Window, charged: int, phase: Phase) -> dict[str, Any]:
    """The header's fields of money: what is charged, split, and what this does to what is held and was paid so far."""
    shares = split(charged, fee_ppm=payee.fee_ppm, held_ppm=payee.held_ppm)
    released, held_back, held_until = _held(payee, chain, window, shares.held, phase)
    return {
        "charged": str(shares.charged),
        "paid": str(shares.paid),
        "held": str(shares.held),
        "released": str(released),
        "fee": str(shares.fee),
        "dust": str(shares.dust),
        "held_until": held_until,
        "held_back": list(held_back) or None,
        "cumulative_paid": str(chain.cumulative_paid + (shares.paid if phase == "posted" else 0)),
    }


def _held(payee: Payee, chain: Chain, window: Window, share: int, phase: Phase) -> tuple[int, Held, str | None]:
    """What the claim releases, what is held of the chain then, and from when its own share is due."""
    when = held.due_from(window.end, payee.hold_months) if share else None
    if phase == "pending":
        return 0, chain.held, when
    released, stays = held.released(chain.held, window.end, payee.release)
    return released, held.add(stays, when, share) if when is not None else stays, when


def reversal(header: ClaimHeader, chain: Chain) -> Claim:
    """The claim that takes back a posted one of the chain: the next revision of its window, equal amounts, no lines.

    What that one had released is due again at once. Refused (NotHeld) where what it held has been released since.
    """
    left = held.add(chain.held, header.held_until, -int(header.held)) if header.held_until is not None else chain.held
    left = held.add(left, header.window_end, int(header.released))
    revision = header.revision + 1
    taken_back = header.model_copy(
        update={
            "id": claim_id(
                federation=header.federation,
                pool=header.pool,
                account=header.account,
                window_start=header.window_start,
                window_end=header.window_end,
                revision=revision,
            ),
            "revision": revision,
            "phase": "posted",
            "reverses": header.id,
            "sequence": chain.sequence + 1,
            "previous_digest": chain.head,
            "cumulative_paid": str(chain.cumulative_paid - int(header.paid)),
            "held_back": list(left) or None,
            "line_count": 0,
            "parts": [],
            "evidence_digest": "",
            "meter_version": METER_VERSION,
        }
    )
    return Claim(taken_back, canonical.digest(taken_back.dump()), ())


def _check_size(payee: Payee, window: Window, what: str, size: int, limit: int) -> None:
    if size > limit:
        raise Refused(
            f"the claim of home {payee.home} in pool {payee.pool} from {window.start_text} to {window.end_text} has"
            f" {size} {what}, at most {limit}: give the pool shorter spec.settlement.windowSeconds or fewer consumers",
            reason="ClaimTooLarge",
        )


def _charges(lines: Iterable[Line]) -> list[Charge]:
    """What each consumer owes and used, sorted as the header wants it."""
    owed: dict[str, int] = defaultdict(int)
    used: dict[str, dict[tuple[Basis, Unit], int]] = defaultdict(lambda: defaultdict(int))
    for line in lines:
        owed[line.consumer] += int(line.amount)
        used[line.consumer][line.basis, line.unit] += int(line.accepted)
    return [
        Charge(
            account=account,
            charged=str(owed[account]),
            usage=[
                UnitTotal(basis=basis, unit=unit, amount=str(amount))
                for (basis, unit), amount in sorted(used[account].items())
                if amount
            ],
        )
        for account in sorted(owed)
    ]


def _parts(
    identity: str, chunks: Sequence[Sequence[Line]], reports: Sequence[ReportSignature], secret: bytes
) -> list[LinesPart]:
    return [
        LinesPart(
            claim=identity,
            part=number,
            salt=hmac.new(secret, f"{identity}\n{number}".encode(), hashlib.sha256).hexdigest(),
            reports=list(reports[(number - 1) * REPORTS_PER_PART : number * REPORTS_PER_PART]),
            lines=list(chunk),
        )
        for number, chunk in enumerate(chunks, start=1)
    ]


def _chunks(lines: Sequence[Line]) -> list[Sequence[Line]]:
    """At most 1000 lines, and at most what fits an object (base64 and envelope leave 3/4 of a part's bytes)."""
    chunks: list[Sequence[Line]] = []
    begin, size = 0, 0
    for index, line in enumerate(lines):
        more = _size(line) + 1
        if index > begin and (index - begin == LINES_PER_PART or size + more > MAX_PART * 3 // 4):
            chunks.append(lines[begin:index])
            begin, size = index, 0
        size += more
    return [*chunks, lines[begin:]] if lines else []


def _size(line: Line) -> int:
    """Bytes of a line in canonical JSON: the order of its members, which canonical JSON sorts, does not change them."""
    return len(line.model_dump_json(by_alias=True, exclude_none=True).encode())
