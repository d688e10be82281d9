"""The internet of a test run, in one machine: a bridge, and one network namespace per cluster on it.

A home's namespace takes nothing in from outside but answers to what it asked: the router of a flat. The hub's takes
all. The one exception is the bridge's own address in the root namespace, which is the testbed's hand: from there test
code drives every API server. What runs in a cluster has other addresses, so nothing under test can use the exception.
"""

import fcntl
import ipaddress
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import TestbedError, Unavailable
from testbed.leftovers import RECORDS, Run
from testbed.process import in_netns

INTERNET = ipaddress.ip_network("198.18.0.0/15")  # RFC 2544: kept for tests of network devices, routed nowhere
FIRST_HOST = 10

MASQUERADE = """
table ip leaving {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "eth0" masquerade
  }
}
"""
"""Pods leave with the address of their site, as they do through a CNI's ipMasq (which would need iptables)."""

OUTBOUND_ONLY = """
table inet home-router {{
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "eth0" ct state established,related accept
    iifname "eth0" ip saddr {hand} accept
    iifname "eth0" drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "eth0" ct state established,related accept
    iifname "eth0" drop
  }}
}}
"""


@dataclass(frozen=True)
class Site:
    """A network namespace with one address on the bridge."""

    netns: str
    address: str

    def run(
        self, *command: str, timeout_s: float = 120, stdin: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command there and waits for it, whatever its exit status."""
        argv = in_netns(self.netns, command)
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout_s, input=stdin)


class Network:
    """The bridge and its sites. All of it bears the run's names, and `Run.close` removes it."""

    def __init__(self, run: Run) -> None:
        """Makes the bridge, with an address range that nothing on this machine uses. Raises TestbedError."""
        self._run = run
        self.sites: dict[str, Site] = {}
        with _allocation():
            self.subnet = _free_subnet()
            self.hand = str(self.subnet[1])
            _ip("link", "add", run.bridge, "type", "bridge")
            _ip("address", "add", f"{self.hand}/{self.subnet.prefixlen}", "dev", run.bridge)
        _ip("link", "set", run.bridge, "up")

    def add(self, name: str, *, outbound_only: bool) -> Site:
        """A new namespace on the bridge; with `outbound_only` nothing reaches it uninvited."""
        number = len(self.sites)
        site = Site(self._run.name(name), str(self.subnet[FIRST_HOST + number]))
        self.sites[name] = site
        link = self._run.link(number)
        _ip("netns", "add", site.netns)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", site.netns)
        _ip("link", "set", link, "master", self._run.bridge, "up")
        for command in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{site.address}/{self.subnet.prefixlen}", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", self.hand),
        ):
            _ip("-netns", site.netns, *command)
        _load_rules(site, MASQUERADE)
        if outbound_only:
            _load_rules(site, OUTBOUND_ONLY.format(hand=self.hand))
        return site

    def unplug(self, name: str) -> None:
        """Takes a site off the bridge, as a pulled cable does: connections hang, nothing is refused."""
        _ip("link", "set", self._run.link(list(self.sites).index(name)), "down")

    def plug(self, name: str) -> None:
        """Puts a site back on the bridge."""
        _ip("link", "set", self._run.link(list(self.sites).index(name)), "up")


def _load_rules(site: Site, rules: str) -> None:
    done = site.run("nft", "-f", "-", stdin=rules)
    if done.returncode:
        raise TestbedError(f"nft in {site.netns}: {done.stderr.strip()}")


def _free_subnet() -> ipaddress.IPv4Network:
    """The first /24 of INTERNET in which no interface of this machine has an address."""
    used = [
        ipaddress.ip_interface(f"{address['local']}/{address['prefixlen']}").network
        for link in json.loads(_ip("-json", "-4", "address", "show"))
        for address in link.get("addr_info", [])
    ]
    for subnet in INTERNET.subnets(new_prefix=24):
        assert isinstance(subnet, ipaddress.IPv4Network)
        if not any(subnet.overlaps(network) for network in used):
            return subnet
    raise Unavailable(f"no free network in {INTERNET}: `python -m testbed.leftovers` removes those of dead runs")


@contextmanager
def _allocation() -> Iterator[None]:
    """Two runs that start at once do not choose the same range."""
    with Path(RECORDS / "subnets.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ip(*arguments: str) -> str:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, timeout=120)
    except FileNotFoundError as error:
        raise Unavailable("ip is not installed: run `make system` as root") from error
    if done.returncode:
        raise TestbedError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
