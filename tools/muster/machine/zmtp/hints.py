"""Why a connection could not be made, and what an operator may check then."""

from __future__ import annotations

from cluster.errors import PEER_KEY_WAYS
from tools.muster.machine.zmtp import own_user as owners
from tools.muster.machine.zmtp.stream import ENDED, LATE

NO_KEY = "handshake failed: the other host has another peer key"
NO_PEER = "it answered, but not as a peer"
NO_ANSWER = "it accepts connections, but does not answer as a peer"


def fields(address: str, trouble: str, *, tls: bool = False) -> dict[str, str]:
    """The fields of a log line about a connection that ended; unknown ones are left out."""
    known = {"address": address, "reason": trouble, "hint": hint_of(trouble, tls=tls)}
    return {name: value for name, value in known.items() if value}


def hint_of(trouble: str, *, tls: bool = False) -> str:
    """``tls``: it is spoken here, so that what just ends is no other protocol."""
    if tls and trouble in ENDED:
        return ""
    if owners.NOT_OWN in trouble:
        return "hosts of several users on one machine need the same --peer-key-file"
    if owners.BEYOND in trouble:
        return PEER_KEY_WAYS
    # libzmq, which older hosts with a key use, just ends a connection that wants another mechanism
    if "security mechanism" in trouble or trouble in ENDED:
        return "either every host has a --peer-key-file, or none"
    if trouble == NO_KEY:
        return "every host needs the same --peer-key-file"
    if trouble.startswith("x509: certificate is valid for") or "does not match any of DNSNames" in trouble:
        return (
            "the peer dials from an address that its certificate is not for: see the names and addresses in "
            "it, or --peer-skip-client-san-verification")
    if "first record does not look like a TLS handshake" in trouble:
        return "either every host has https peer URLs, or none"
    if trouble.startswith(("tls: ", "remote error: tls: ")):
        return "see --peer-cert-file, --peer-trusted-ca-file and the host's name in its peer URL"
    if trouble.startswith(("client certificate authentication failed", "transport: certificate serial")):
        return "see --peer-cert-allowed-cn, --peer-cert-allowed-hostname and --peer-crl-file"
    if "does not speak ZMTP" in trouble or trouble in (NO_PEER, NO_ANSWER, LATE):
        return "one side is no peer port of muster: compare --initial-cluster and --listen-peer-urls"
    return ""
