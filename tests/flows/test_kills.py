"""SIGKILL of hub operator, agents and ledger at random moments, while pods, Jobs and claims flow.

What is compared with the truth afterwards: which pods the home API servers created, how long the hub saw them run,
and what the claims say. The seed is printed; HOMEFED_TEST_SEED repeats it.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from corner import Corner, condition, corner, eventually, phase

from homefed.api import names
from homefed.api.claim_document import Line
from homefed.core import claim_chain, rewards
from homefed.core.claim_chain import Claim
from homefed.core.times import from_rfc3339
from homefed.ledger.keys import HubKeys
from testbed.federated import Json
from testbed.processes import FEDERATION, HomeFed

pytestmark = pytest.mark.timeout(600)

KILLS = 20
"""Of each: the hub operator, the ledger, the agents (both together)."""
ALIVE = 14
"""Pods of the consumer at a time."""
LONG = 10**15
"""Milliseconds after everything."""
SETTLEMENT = {"latenessSeconds": 30}
"""Longer than any process is away: without a report of the home nothing is settled before the hub has seen all."""


@dataclass
class Consumer:
    """Creates pods and Jobs, and deletes pods, until told to stop; remembers what it did."""

    corner: Corner
    rng: random.Random
    created: dict[str, str] = field(default_factory=dict)
    """UID of every bare pod → its name."""
    deleted: set[str] = field(default_factory=set)
    jobs: dict[str, int] = field(default_factory=dict)
    """Name of every Job → seconds that its pod runs."""

    def work(self, stop: threading.Event) -> None:
        while not stop.wait(self.rng.uniform(0.1, 0.6)):
            alive = sorted(self.created.keys() - self.deleted)
            action = self.rng.random()
            if action < 0.3:
                self.start_job()
            elif action < 0.65 and len(alive) < ALIVE:
                self.create()
            elif alive:
                self.remove(self.rng.choice(alive))

    def create(self) -> None:
        pod = self.corner.pod(f"pod-{len(self.created)}")
        self.created[pod["metadata"]["uid"]] = pod["metadata"]["name"]

    def remove(self, uid: str) -> None:
        self.deleted.add(uid)
        self.corner.delete(self.created[uid])

    def start_job(self) -> None:
        name, seconds = f"job-{len(self.jobs)}", self.rng.randint(1, 6)
        env = {"TESTBED_RUN_FOR": f"{seconds}s"}
        template = {"spec": self.corner.pod_spec(env, restartPolicy="Never")}
        body = {"metadata": {"name": name}, "spec": {"backoffLimit": 6, "template": template}}
        self.corner.hub.request("POST", f"/apis/batch/v1/namespaces/{self.corner.name}/jobs", body)
        self.jobs[name] = seconds


@dataclass
class Aftermath:
    """What there was when everything had ended and was settled."""

    corner: Corner
    consumer: Consumer
    bare: dict[str, str]
    """UID → name of the consumer's bare pods."""
    job_pods: dict[str, list[Json]]
    """Name of every Job → the pods that it had."""
    jobs: dict[str, Json]
    guests: dict[str, Json]
    creations: Counter[str]
    """Names of home pods, as often as the homes' API servers created one."""
    chains: dict[str, list[Claim]]
    """Of every home, oldest first."""

    def lines(self) -> Iterator[Line]:
        for claims in self.chains.values():
            for claim in claims:
                for part in claim.parts:
                    yield from part.lines


@pytest.fixture(scope="module")
def aftermath(homefed: HomeFed) -> Iterator[Aftermath]:
    seed = int(os.environ.get("HOMEFED_TEST_SEED") or random.randrange(10**6))
    print(f"HOMEFED_TEST_SEED={seed}")
    with corner(homefed, "kills", SETTLEMENT) as own:
        for home in own.homes:
            own.contribute(home, "kills")
        own.ready_nodes(4)
        offsets = {home: cluster.audit_log.stat().st_size for home, cluster in own.homes.items()}
        consumer = Consumer(own, random.Random(seed))
        kill_all(homefed, consumer, seed)
        seen = look(own, consumer, offsets)
        print(f"{len(seen.guests)} guests, {len(seen.jobs)} Jobs, {len(consumer.deleted)} pods deleted,")
        print(f"{sum(map(len, seen.chains.values()))} claims, {len([*seen.lines()])} lines")
        yield seen


def kill_all(homefed: HomeFed, consumer: Consumer, seed: int) -> None:
    """KILLS kills of each kind of process beside a consumer that works on."""
    plan = {"hub": KILLS, "ledger": KILLS, "home-1": KILLS // 2, "home-2": KILLS // 2}
    stop = threading.Event()
    with ThreadPoolExecutor(len(plan) + 1) as pool:
        working = pool.submit(consumer.work, stop)
        rngs = {name: random.Random(f"{seed}/{name}") for name in plan}
        killing = [pool.submit(kill, homefed, name, count, rngs[name]) for name, count in plan.items()]
        try:
            for future in killing:
                future.result()
        finally:
            stop.set()
        working.result()
    homefed.await_ready(*plan)


def kill(homefed: HomeFed, name: str, times: int, rng: random.Random) -> None:
    """At other moments of its life: while it starts, and the next time while it works, as long as it takes to start;
    some stay away for a while."""
    longest = 2.0 if name in ("hub", "ledger") else 6.0
    for number in range(times):
        if number % 2:
            time.sleep(rng.uniform(0.2, 2.5))
        else:
            homefed.await_ready(name)
            time.sleep(rng.uniform(1.0, longest))
        homefed.kill(name)
        time.sleep(rng.choice([0.0, 0.0, 1.0, 2.0]))
        homefed.restart(name)


def look(own: Corner, consumer: Consumer, offsets: dict[str, int]) -> Aftermath:
    """Wait until nothing is left to be done, end everything, wait until it is settled, and look."""
    jobs = f"/apis/batch/v1/namespaces/{own.name}/jobs"
    eventually(lambda: all(condition(job, "Complete") for job in own.hub.get(jobs)["items"]), "all Jobs done")
    lasting = consumer.created.keys() - consumer.deleted
    eventually(lambda: set(_uids(own.pods(), "Running")) == lasting, "lasting pods run, deleted ones are gone")
    found_jobs = {job["metadata"]["name"]: job for job in own.hub.get(jobs)["items"]}
    job_pods: dict[str, list[Json]] = defaultdict(list)
    for pod in own.pods():
        if job := (pod["metadata"].get("labels") or {}).get("batch.kubernetes.io/job-name"):
            job_pods[job].append(pod)
    for uid in lasting:
        own.delete(consumer.created[uid])
    eventually(lambda: all(map(_is_settled, own.guests())), "every guest has ended and is settled")
    guests = {guest["metadata"]["name"]: guest for guest in own.guests()}
    eventually(lambda: all(_has_receipt(own, home) for home in own.homes), "every claim has its receipt")
    creations = Counter(name for home, offset in offsets.items() for name in _created(own, home, offset))
    chains = {home: _chain(own, home) for home in own.homes}
    return Aftermath(own, consumer, consumer.created, job_pods, found_jobs, guests, creations, chains)


def _uids(pods: list[Json], wanted: str) -> list[str]:
    return [pod["metadata"]["uid"] for pod in pods if phase(pod) == wanted]


def _is_settled(guest: Json) -> bool:
    annotations = guest["metadata"].get("annotations") or {}
    return "homefed.io/settled-through" in annotations or not guest["spec"]["observed"].get("runningFrom")


def _has_receipt(own: Corner, home: str) -> bool:
    return all((claim.get("status") or {}).get("receiptedAt") for claim in own.claims(home))


def _created(own: Corner, home: str, offset: int) -> Iterator[str]:
    for event in own.homes[home].audit_events(offset):
        if event.namespace == names.GUESTS_NAMESPACE and event.resource == "pods" and event.status == 201:
            yield event.name


def _chain(own: Corner, home: str) -> list[Claim]:
    """The claims of a home in this pool, as the hub's key signed them."""
    parts = [obj for obj in own.claim_objects(home) if obj["spec"]["part"] == "Lines"]
    keys = HubKeys([own.homefed.folder / "hub-key"]).for_keyid("")
    return [claim_chain.read(header, parts, keys) for header in own.claims(home)]


def test_every_pod_ran_as_exactly_one_pod_of_a_home(aftermath: Aftermath) -> None:
    lasting = aftermath.bare.keys() - aftermath.consumer.deleted
    of_jobs = {pod["metadata"]["uid"] for pods in aftermath.job_pods.values() for pod in pods}
    assert set(aftermath.creations.values()) == {1}
    created = {name.removeprefix(names.NODE_PREFIX) for name in aftermath.creations}
    assert lasting | of_jobs <= created <= aftermath.bare.keys() | of_jobs
    started = {uid for uid, guest in aftermath.guests.items() if guest["status"].get("startedAt")}
    assert started <= created <= aftermath.guests.keys()


def test_every_job_was_done_once(aftermath: Aftermath) -> None:
    assert aftermath.consumer.jobs.keys() == aftermath.jobs.keys()
    for name, job in aftermath.jobs.items():
        assert job["status"]["succeeded"] == 1, name
        assert len(aftermath.job_pods[name]) == 1, name


def test_no_home_runs_what_the_hub_has_ended(aftermath: Aftermath) -> None:
    own = aftermath.corner
    left = [pod for home in own.homes for pod in own.home_pods(home)]
    assert {phase(pod) for pod in left} <= {"Succeeded", "Failed"}
    assert {pod["metadata"]["name"].removeprefix(names.NODE_PREFIX) for pod in left} <= aftermath.guests.keys()


def test_every_guest_has_a_terminal_phase_and_an_end_that_the_hub_saw(aftermath: Aftermath) -> None:
    for guest in aftermath.guests.values():
        assert guest["status"]["phase"] in ("Succeeded", "Failed")
        assert guest["spec"]["observed"].get("endedAt")


def test_the_hub_observed_jobs_for_as_long_as_they_ran(aftermath: Aftermath) -> None:
    """The home's own times, rounded to seconds, whenever hub and agent came back; a machine may be late to end a pod,
    and is never early."""
    for name, seconds in aftermath.consumer.jobs.items():
        (pod,) = aftermath.job_pods[name]
        guest = aftermath.guests[pod["metadata"]["uid"]]
        reserved = rewards.observation(guest).reserved_ms(LONG)
        started, finished = (from_rfc3339(guest["status"][key]) for key in ("startedAt", "finishedAt"))
        assert abs(reserved - 1000 * (finished - started).total_seconds()) <= 2000, name
        assert reserved >= 1000 * seconds - 2000, name


def test_no_claim_is_missing_and_each_names_the_one_before(aftermath: Aftermath) -> None:
    for claims in aftermath.chains.values():
        assert [claim.header.sequence for claim in claims] == [*range(1, len(claims) + 1)]
        assert len(claims) > 1
        for before, after in pairwise(claims):
            assert after.header.previous_digest == before.digest
            assert after.window.start >= before.window.end


def test_what_is_claimed_is_what_was_requested_for_as_long_as_it_ran(aftermath: Aftermath) -> None:
    claimed: Counter[tuple[str, str]] = Counter()
    for line in aftermath.lines():
        if line.basis == "reserved":
            assert int(line.accepted_before) == claimed[line.guest_pod, line.resource]
            claimed[line.guest_pod, line.resource] += int(line.accepted)
        else:
            assert int(line.accepted) == 0
    expected: dict[tuple[str, str], int] = {}
    for uid, guest in aftermath.guests.items():
        observed = rewards.observation(guest)
        for resource in ("cpu", "memory"):
            units = rewards.units_of(resource, observed.requests[resource], observed.reserved_ms(LONG))[1]
            expected |= {(uid, resource): units} if units else {}
    assert claimed == expected


def test_every_window_is_billed_to_the_consumer_and_sums_up(aftermath: Aftermath) -> None:
    charged = 0
    for claims in aftermath.chains.values():
        for claim in claims:
            header, lines = claim.header, [line for part in claim.parts for line in part.lines]
            assert int(header.charged) == sum(int(line.amount) for line in lines) > 0
            split = [int(amount) for amount in (header.paid, header.held, header.fee, header.dust)]
            assert sum(split) == int(header.charged)
            charged += int(header.charged)
    own = aftermath.corner
    namespace = own.hub.get(f"/api/v1/namespaces/{own.name}")["metadata"]["uid"]
    account = names.consumer_account(FEDERATION, namespace)
    assert int(own.homefed.ledger(f"/v1/accounts/{account}/balance")["balance"]) == -charged


def test_the_ledger_has_every_claim_once(aftermath: Aftermath) -> None:
    own = aftermath.corner
    assert own.homefed.ledger("/v1/totals")["conserved"] is True
    for home, claims in aftermath.chains.items():
        account = names.contributor_account(FEDERATION, own.home(home)["metadata"]["uid"])
        head = own.homefed.ledger(f"/v1/chains/{own.name}/{account}")
        assert (head["sequence"], head["digest"]) == (len(claims), claims[-1].digest)
        assert int(head["cumulativePaid"]) == sum(int(claim.header.paid) for claim in claims)
        for claim in claims:
            assert own.homefed.ledger(f"/v1/claims/{claim.header.id}")["digest"] == claim.digest
