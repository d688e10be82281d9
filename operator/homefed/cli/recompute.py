"""`homefed claims recompute`: report and claim computed again from an evidence bundle, compared byte for byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from homefed.api import dsse
from homefed.api.errors import Refused
from homefed.api.evidence_document import Bundle, SettledClaim
from homefed.cli.claim_files import from_file
from homefed.cli.ledger_options import decoded_key, text_of
from homefed.cli.output import json_option, show
from homefed.core import evidence, recompute

Row = dict[str, Any]
_FILE: Final = click.Path(path_type=Path, dir_okay=False, exists=True)
LONGEST: Final = 100
"""Characters of a value in the table."""


@click.command(name="recompute")
@click.argument("path", metavar="BUNDLE", type=_FILE)
@click.option("--claim", type=_FILE, default=None, help="As `claims show CLAIM -o json` wrote it, not the bundle's.")
@click.option("--hub-key", default=None, help="The hub's public key (base64 or a file): also check its signature.")
@json_option
@click.pass_context
def recompute_(context: click.Context, path: Path, claim: Path | None, hub_key: str | None, output: str) -> None:
    """Compute the report and the claim of BUNDLE again, with nothing but the files, and compare every byte.

    A bundle is a file of the agent's evidence volume, POOL-END.bundle.json.gz. Exit status: 0 all bytes are the same;
    1 something differs, and what does is named, or something needed is not in the bundle.
    """
    bundle = evidence.read(path.read_bytes())
    signed = _signed(claim) if claim is not None else None
    answer = _answer(bundle, signed, hub_key)
    show(answer, output, _text)
    context.exit(0 if answer["same"] else 1)


def _signed(path: Path) -> SettledClaim:
    found = from_file(path)
    return SettledClaim(envelope=found.envelope.to_json(), parts=list(found.parts))


def _answer(bundle: Bundle, signed: SettledClaim | None, hub_key: str | None) -> Row:
    report = recompute.report(bundle)
    problem, claim = None, recompute.Result(())
    if bundle.settled is not None or signed is not None:
        try:
            claim = recompute.claim(bundle, signed)
        except Refused as error:
            problem = {"reason": error.reason, "message": error.message}
    documents = [*report.documents, *claim.documents]
    answer: Row = {
        "same": bool(documents) and all(one.same for one in documents) and problem is None,
        "documents": [asdict(one) | {"same": one.same} for one in documents],
        "given": list(claim.given),
        "problem": problem,
        "claimInBundle": bundle.settled is not None,
    }
    if hub_key is not None:
        answer["signature"] = _signature(bundle, signed, hub_key)
        answer["same"] = answer["same"] and answer["signature"] == "verified"
    return answer


def _signature(bundle: Bundle, signed: SettledClaim | None, hub_key: str) -> str:
    """`verified`, or why it is not."""
    claim = signed or (bundle.settled.claim if bundle.settled is not None else None)
    if claim is None:
        return "there is no claim"
    raw = decoded_key("--hub-key", text_of("--hub-key", hub_key).strip())
    try:
        dsse.verify(dsse.from_json(claim.envelope), dsse.CLAIM_TYPE, {dsse.fingerprint(raw): raw})
    except Refused as error:
        return f"{error.reason}: {error.message}"
    return "verified"


def _text(answer: Mapping[str, Any]) -> str:
    lines = [line for one in answer["documents"] for line in _compared(one)]
    if answer["given"]:
        lines.append(f"taken from the claim as the organiser's choice: {', '.join(answer['given'])}")
    if "signature" in answer:
        lines.append(f"signature of the hub: {answer['signature']}")
    if answer["problem"]:
        lines.append(f"the claim cannot be computed: {answer['problem']['message']} ({answer['problem']['reason']})")
    elif not answer["claimInBundle"]:
        lines.append("no claim is in this bundle yet: the hub had not settled its window; take it again later")
    lines.append("all bytes are the same" if answer["same"] else "NOT THE SAME")
    return "\n".join(lines)


def _compared(one: Mapping[str, Any]) -> list[str]:
    if one["same"]:
        return [f"{one['document']}: {one['size']} bytes, SHA-256 {one['signed_digest']}: the same"]
    lines = [f"{one['document']}: differs from byte {one['at']} on (SHA-256 signed {one['signed_digest']},"]
    lines[0] += f" computed {one['computed_digest']})"
    for field in one["fields"]:
        signed, computed = (_short(field[name]) for name in ("signed", "computed"))
        lines.append(f"  {field['field'] or 'the document'}: signed {signed}, computed {computed}")
    return lines


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
