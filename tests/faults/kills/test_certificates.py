"""docs/run/certificates.md, pasted into three machines: as ``test_readme`` pastes README, with differences.
``ssh`` runs a command with the other machine's folder in front of its paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.local_cluster import ROOT, until
from tests.faults.kills.test_readme import Machine, as_the_unit_says, machines, replaced
from tests.faults.netns import need, net

_AUTHORITIES = "where the authorities are kept"
_INSTALLED = """mkdir -p /opt/muster /usr/local/bin
ln -s "$CHECKOUT/.venv" /opt/muster/venv
ln -sf /opt/muster/venv/bin/muster /opt/muster/venv/bin/musterctl /usr/local/bin/
"""

pytestmark = [
    pytest.mark.skipif(
        not (ROOT / ".venv/bin/muster").exists(), reason="needs make setup: it stands for pip"
    ),
    pytest.mark.timeout(480),
]


def blocks() -> list[tuple[str, str]]:
    """Who pastes what, in the page's order."""
    page = (ROOT / "docs" / "run" / "certificates.md").read_text()
    found = re.findall(r"(?ms)^```sh\n# ([^\n]*)\n(.*?)^```$", page)
    assert [who for who, _ in found] == [
        *[_AUTHORITIES] * 3, "on every host", "on every host, by systemd",
        f"{_AUTHORITIES}, and the clients", "as app", "as app, by HTTP", f"{_AUTHORITIES}, to revoke",
        f"{_AUTHORITIES}, to renew",
    ]  # fmt: skip
    return found


def reaching(commands: str, to: dict[str, str]) -> str:
    """The commands with other machines' folders in place of ``scp`` and ``ssh``; ``to``: names by address."""
    lines = []
    for line in commands.splitlines():
        if copy := re.fullmatch(r"scp -p (\S+) root@([\d.]+):(\S+)", line):
            line = f"cp -p {copy[1]} $MACHINES/{to[copy[2]]}{copy[3]}"
        elif there := re.fullmatch(r"ssh root@([\d.]+) (.+)", line):
            line = re.sub(r"(?<= )/", f"$MACHINES/{to[there[1]]}/", there[2])
        lines.append(line)
    return "\n".join(lines)


def refused(client: Machine, commands: str, hosts: Sequence[Machine], reason: str) -> bool:
    """Whether every host has logged by now why it refuses a client, which in any case gets no answer."""
    code, _ = client.paste(commands)
    assert code != 0
    return all(re.search(reason, (host.root / "log").read_text()) for host in hosts)


def test_three_hosts_and_users_by_certificates(tmp_path: Path) -> None:
    need()
    made, issued, handed_out, start, unit, users, as_app, by_curl, revoked, renewed = (
        commands for _, commands in blocks()
    )
    first, start = start.split("\n", 1)
    cluster = start.splitlines()[0]
    unit = replaced(unit, {"chown -R muster:muster /etc/muster /var/lib/muster": ""})
    with net(3, "10.0.0") as network, machines(network, tmp_path, [first]) as (*hosts, _):
        kept = hosts[0]  # host-a, and the authorities with it
        to = {host.address: host.name for host in hosts}
        for host in hosts:
            host.ok(_INSTALLED)
        for commands in (made, issued, reaching(handed_out, to)):
            kept.ok(commands)  # each in a shell of its own
        keys = "cat /etc/muster-ca/clients/ca-key.pem /etc/muster-ca/peers/ca.pem"
        authorities = kept.ok(keys)
        kept.ok(made)
        assert kept.ok(keys) == authorities
        *by_hand, by_systemd = hosts
        for host in by_hand:
            host.start(start)
        by_systemd.start(f"{cluster}\n{unit}\n{as_the_unit_says()}")
        environment = "export ETCDCTL_COMMAND_TIMEOUT=50s\n" + "".join(
            f"{line}\n" for line in users.splitlines() if line.startswith("export ")
        )
        for host in hosts:
            kept.wait_for(f"{environment}musterctl --endpoints https://{host.address}:2379 get a")
        commands = [line for line in users.splitlines() if not line.startswith("export ")]
        shown = "".join(kept.ok(environment + line) for line in commands)  # each has a minute
        assert shown.count(" is healthy: ") == 3
        assert shown.endswith("Authentication Enabled\n")
        assert kept.ok(f"{environment}{as_app}") == "OK\n/app/key\nvalue\n"
        code, denied = kept.paste(f"{environment}{as_app}musterctl put elsewhere value")
        assert code != 0
        assert "permission denied" in denied
        assert '"etcdserver":"3.5.' in kept.ok(by_curl)
        # without a certificate, by http, and as one who is revoked
        get = "export ETCDCTL_COMMAND_TIMEOUT=2s\nmusterctl get /app/key"
        nobody = f"{environment}unset ETCDCTL_CERT ETCDCTL_KEY\n{get}"
        until(lambda: refused(kept, nobody, hosts, "tls: client didn't provide a certificate"))
        by_http = f"{get} --endpoints http://{kept.address}:2379"
        until(lambda: refused(kept, by_http, [kept], "the client says http, and this port is https"))
        kept.ok(reaching(revoked, to))
        app = f"{environment}{as_app.splitlines()[0]}\n{get}"
        until(lambda: refused(kept, app, hosts, "transport: certificate serial [0-9a-f]+ revoked"))
        assert kept.ok(f"{environment}musterctl get /app/key") == "/app/key\nvalue\n"
        before = kept.ok("cat /etc/muster-ca/host-b/server.pem")
        kept.ok(reaching(renewed, to))
        assert hosts[1].ok("cat /etc/muster/tls/server.pem") != before
        kept.wait_for(f"{environment}musterctl --endpoints https://{hosts[1].address}:2379 get a")
