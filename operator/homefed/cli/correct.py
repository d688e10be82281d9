"""`homefed claims correct`: the organiser's word that a claim is wrong. The hub takes it back and settles it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from homefed.api import names
from homefed.api.errors import Invalid
from homefed.cli.cluster import asynchronous, client, cluster_options
from homefed.cli.output import json_option, show
from homefed.core import correction
from homefed.kube.client import KubeClient
from homefed.kube.resources import HOMES, REWARDCLAIMS


@click.command()
@click.argument("claim")
@click.option("--reason", required=True, help="Why, in a sentence; kept at the claim and told in an event.")
@click.option("--forfeit", is_flag=True, help="Do not pay it again: for proven cheating. Consumers get all of it back.")
@cluster_options
@json_option
@asynchronous
async def correct(claim: str, reason: str, forfeit: bool, kubeconfig: Path, context: str | None, output: str) -> None:
    """Take CLAIM (the beginning of its id) back and settle its window again.

    The hub writes a reversal and the next revision, from what it knows now and at the prices of now; both go to the
    ledger. Guest pods and reports that are gone are carried over as they stood.
    """
    how = correction.FORFEIT if forfeit else correction.RESETTLE
    async with client(kubeconfig, context) as kube:
        header = await _header(kube, claim)
        await _say(kube, header, how, reason[:1024])
        home = await _home(kube, header)
        await kube.patch(
            HOMES, home, {"metadata": {"annotations": {names.ANNOTATION_REVIEW: header["spec"]["claimId"]}}}
        )
    answer = {"claim": header["spec"]["claimId"], "home": home, "correction": how, "reason": reason}
    show(answer, output, _asked)


async def _header(kube: KubeClient, claim: str) -> dict[str, Any]:
    headers = [item for item in (await kube.list(REWARDCLAIMS)).items if item["spec"]["part"] == "Header"]
    found = [item for item in headers if item["spec"]["claimId"].startswith(claim)]
    if len(found) != 1:
        raise Invalid(
            f"CLAIM {claim!r}: {len(found)} claims that the hub still keeps begin so; see `homefed claims list`. Older"
            " ones cannot be corrected: pay the difference outside of HomeFed"
        )
    return found[0]


async def _say(kube: KubeClient, header: dict[str, Any], how: str, reason: str) -> None:
    """At the claim, for ever: a word that was given once is not changed."""
    metadata = header["metadata"]
    said = (metadata.get("annotations") or {}).get(names.ANNOTATION_CORRECTION)
    if said not in (None, how):
        raise Invalid(f"CLAIM {header['spec']['claimId'][:12]}: it is corrected already ({said})")
    word = {names.ANNOTATION_CORRECTION: how, names.ANNOTATION_REASON: reason}
    await kube.patch(REWARDCLAIMS, metadata["name"], {"metadata": {"annotations": word}}, metadata["namespace"])


async def _home(kube: KubeClient, header: dict[str, Any]) -> str:
    """The Home whose mailbox holds the claim."""
    mailbox = header["metadata"]["namespace"]
    for home in (await kube.list(HOMES)).items:
        if (home.get("status") or {}).get("mailbox") == mailbox:
            return str(home["metadata"]["name"])
    raise Invalid(f"no Home has the mailbox {mailbox} any more: nobody settles its claims")


def _asked(answer: dict[str, Any]) -> str:
    after = "It is not paid again." if answer["correction"] == correction.FORFEIT else "Its window is settled again."
    return (
        f"claim {answer['claim'][:12]} of {answer['home']} is taken back with the hub's next pass (5 s). {after}\n"
        "See it with `homefed claims list`; what cannot be taken back is an event on the Home."
    )
