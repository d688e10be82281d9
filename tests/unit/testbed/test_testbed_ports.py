"""Ports that nobody else takes."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed import ports
from testbed.errors import Unavailable

TESTS = Path(__file__).parents[2]


@pytest.fixture
def port() -> Iterator[int]:
    [reserved] = ports.reserve(1)
    yield reserved
    ports.release([reserved])


def test_reserved_ports_are_distinct_below_the_ephemeral_range_and_free() -> None:
    found = ports.reserve(5)
    try:
        assert len(set(found)) == 5
        assert all(port in ports.RANGE for port in found)
        for port in found:
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", port))
    finally:
        ports.release(found)


def test_threads_never_get_the_same_port() -> None:
    with ThreadPoolExecutor(8) as pool:
        found = [port for group in pool.map(lambda _: ports.reserve(3), range(8)) for port in group]
    ports.release(found)
    assert len(set(found)) == 24


def test_a_port_on_which_something_listens_is_passed_over(port: int) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        ports.release([port])
        with pytest.raises(Unavailable, match=r"1 free ports on 127.0.0.1 are needed, 0 were found"):
            ports.reserve(1, candidates=[port])


def test_a_reserved_port_is_refused_to_others_until_it_is_released(port: int) -> None:
    with pytest.raises(Unavailable):
        ports.reserve(1, candidates=[port])
    ports.release([port])
    assert ports.reserve(1, candidates=[port]) == [port]


def test_another_test_run_does_not_get_it_either(port: int) -> None:
    script = f"from testbed import ports; ports.reserve(1, candidates=[{port}])"
    done = subprocess.run([sys.executable, "-c", script], cwd=TESTS, capture_output=True, text=True, check=False)
    assert "Unavailable" in done.stderr


def test_what_was_found_is_given_back_when_it_does_not_suffice(port: int) -> None:
    ports.release([port])
    with pytest.raises(Unavailable, match="2 free ports"):
        ports.reserve(2, candidates=[port])
    assert ports.reserve(1, candidates=[port]) == [port]
