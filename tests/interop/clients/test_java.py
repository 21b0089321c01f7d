"""Java: the seeds' programs and more, with jetcd."""

from __future__ import annotations

import time

import pytest

from tests.interop.hosts import APART, Hosts
from tests.interop.toolchain import (
    BUILD_LIMIT_S,
    HERE,
    cache,
    call,
    checked,
    fingerprint,
    need,
    skip_without,
    unavailable,
)
from tests.tries import TooSlow, best_of_three, within

skip_without("java", "mvn")
pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

JAVA = HERE / "java"
LIMIT_S = 60.0
TTL_S = 5.0
TICK_S = 1.5


@pytest.fixture(scope="module")
def java() -> list[str]:
    """A java command that lacks only the class. Maven builds offline once it has downloaded what it needs."""
    need("java", "mvn")
    with cache("java") as folder:
        built = folder / fingerprint(JAVA / "pom.xml", *JAVA.glob("src/**/*.java"))
        target = JAVA / "target"
        if not (built.exists() and target.exists()):
            maven = ["mvn", "-q", "-B", "compile"]
            if call([*maven, "--offline"], cwd=JAVA, limit_s=BUILD_LIMIT_S).returncode != 0:
                done = call(maven, cwd=JAVA, limit_s=BUILD_LIMIT_S)
                if "Could not transfer" in done.stdout or "Could not resolve" in done.stdout:
                    unavailable(f"mvn compile: {done.stdout.strip()}")
                if done.returncode != 0:
                    pytest.fail(done.stdout + done.stderr, pytrace=False)
            built.touch()
        quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]  # a short life
        return ["java", *quick, "-cp", f"{target / 'classes'}:{target / 'lib'}/*"]


def urls(hosts: Hosts, *which: int) -> list[str]:
    return [f"http://{hosts.endpoints[i]}" for i in which]


def test_configuration_is_put_and_read(java: list[str], hosts: Hosts) -> None:
    printed = checked([*java, "interop.ConfigManagement", *urls(hosts, 0)])
    assert printed == "Value: localhost:3306\n"
    assert hosts.get("config/db", host=1) == "localhost:3306"


@best_of_three
def test_a_registration_ends_with_its_lease(java: list[str], hosts: Hosts) -> None:
    printed = checked([*java, "interop.ServiceRegistration", *urls(hosts, 1)])
    registered = time.monotonic()
    assert printed == "Service registered successfully\n"
    assert hosts.get("services/service1", host=2) == "192.168.0.1:8080"
    hosts.gone("services/service1", LIMIT_S)
    took_s = time.monotonic() - registered
    within(took_s, TTL_S + TICK_S, "the end of the lease")
    if took_s <= TTL_S - 2.5:
        raise TooSlow("the Java machine took its time to end")


def test_jetcd(java: list[str], hosts: Hosts) -> None:
    printed = checked([*java, *(["-Dapart=1"] if APART else []), "interop.Checks", *urls(hosts, 0, 1, 2)])
    assert printed.split("\n") == [
        *(f"ok {name}" for name in ("kv", "txn", "watch", "lease", "cluster", "maintenance")),
        "",
    ]
