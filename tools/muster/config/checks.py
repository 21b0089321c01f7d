"""Checks of settings, before any process starts that would fail over them. ConfigError, in etcd's words where
it has words for it; some return warnings."""

from __future__ import annotations

from urllib.parse import urlsplit

from cluster.errors import PEER_KEY_WAYS
from cluster.features.autocompact import retention_of
from cluster.gotext import quote
from cluster.growth.bounds import Bounds
from cluster.settings import PeerTls
from proxy.auth.tokens import options_of, tokens_of
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.gates import gates_of, warnings_of
from tools.muster.config.kinds import AUTO, Support
from tools.muster.config.parse import ConfigError, Values, convert
from tools.muster.config.urls import Url

LEAST_ORDER_LOG_BYTES = 256 << 20  # half of it is well above what a host keeps while all is well
MIN_PROGRESS_INTERVAL_MS = 100
_LEAST_COST, _MOST_COST, _USUAL_COST = 4, 31, 10  # bcrypt's
_LEAST_MS = 1000
_LEAST = {"max-client-connections": 1, "max-client-snapshots": 1, "max-connection-snapshots": 1,
          "max-control-frames": 100, "max-stream-resets": 100}
_MOST = {
    # twice as much and what comes with it (a watch may get the value before, too) is a message between
    # processes, which has 1 GiB at most
    "max-request-bytes": 448 << 20,
    "max-unanswered-bytes": (1 << 31) - 1,  # HTTP/2's window: clients end a connection that grants more
    "shard-depth": (1 << 32) - 1,  # the record that founds a cluster has 32 bits for it
    "write-buffer-bytes": 1 << 60,  # the store counts half as much again in 64 bits
}
_ZERO_IS_DEFAULT = ("auth-token-ttl", "max-concurrent-streams", "snapshot-count", "snapshot-catchup-entries")
# the largest one leaves room in a block of 33 frames of HTTP/2
_LEAST_HEADER_BYTES, _MOST_HEADER_BYTES = 4096, 524_288


def check_support(values: Values) -> list[str]:
    """Of flags without their function. Returns warnings."""
    warnings = []
    for flag in SERVER_FLAGS.values():
        if not values.is_set(flag.name) or values[flag.name] == convert(flag, flag.default):
            continue
        if flag.support is Support.REFUSED:
            raise ConfigError(f"--{flag.name} is not supported ({flag.help})")
        if flag.support is Support.NO_EFFECT:
            warnings.append(f"--{flag.name} has no effect in muster ({flag.help})")
    gates_of(values["feature-gates"])
    return warnings + warnings_of(values["feature-gates"])


def _check_texts(values: Values) -> None:
    """Names of members and of files are UTF-8 here; etcd takes any bytes."""
    for name in ("name", "data-dir", "wal-dir"):
        try:
            values[name].encode()
        except UnicodeEncodeError:
            raise ConfigError(f"--{name}={quote(values[name])} is no UTF-8") from None


def check_timing(values: Values) -> None:
    heartbeat, election = values["heartbeat-interval"], values["election-timeout"]
    if heartbeat == 0:
        raise ConfigError("--heartbeat-interval must be >0 (set to 0ms)")
    if election == 0:
        raise ConfigError("--election-timeout must be >0 (set to 0ms)")
    if 5 * heartbeat > election:
        raise ConfigError(
            f"--election-timeout[{election}ms] should be at least as 5 times as "
            f"--heartbeat-interval[{heartbeat}ms]")
    if election > 50_000:
        raise ConfigError(
            f"--election-timeout[{election}ms] is too long, and should be set less than 50000ms")
    if values["compact-hash-check-time"] <= 0:
        raise ConfigError("--compact-hash-check-time must be >0 (set to 0s)")
    _check_retention(values["auto-compaction-mode"], values["auto-compaction-retention"])


def _check_retention(mode: str, text: str) -> None:
    try:
        retention_of(mode, text)
    except ValueError:
        raise ConfigError(
            f'error parsing --auto-compaction-retention: "{text}" is not a possible value of mode {mode}'
        ) from None


def check_advertised(values: Values) -> None:
    """``--listen-client-urls`` wants ``--advertise-client-urls``; from a file etcd advertises the default."""
    falls_back = values["discovery"] != "" and values["discovery-fallback"] == "proxy"
    by_file = values.sources.get("listen-client-urls") == "file"
    listens = values.is_set("listen-client-urls") and not by_file
    unsaid = listens and not values.is_set("advertise-client-urls")
    if unsaid and values["proxy"] == "off" and not falls_back:
        raise ConfigError(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly. When listening "
            "on specific address(es), this etcd process must advertise accessible url(s) to each connected "
            "client")


def check_listeners(peer: tuple[Url, ...], client: tuple[Url, ...], http: tuple[Url, ...]) -> None:
    bound = {(u.host, u.port) for u in client}
    if (twice := next((u for u in http if (u.host, u.port) in bound), None)) is not None:
        raise ConfigError(
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url "
            f"{twice.text}")
    if not peer:
        raise ConfigError("--listen-peer-urls must not be empty")
    if not client:
        raise ConfigError("--listen-client-urls must not be empty")


def check_outputs(values: Values) -> None:
    if not values["log-outputs"]:  # from a file it is the default then
        raise ConfigError("--log-outputs must not be empty")
    if "default" in values["log-outputs"] and len(set(values["log-outputs"])) > 1:
        raise ConfigError('multi logoutput for "default" is not supported yet')


def check_discovery(values: Values) -> None:
    """Only one way for hosts to find each other, as etcd."""
    url, endpoints = values["discovery"], values["discovery-endpoints"]
    listed = values.is_set("initial-cluster") and values["initial-cluster"] != ""  # templates write it empty
    ways = (values["discovery-srv"] != "", url != "", bool(endpoints), listed)
    if sum(ways) > 1:
        raise ConfigError(
            "multiple discovery or bootstrap flags are set. "
            'Choose one of "initial-cluster", "discovery", "discovery-endpoints" or "discovery-srv"')
    v3 = ("token", "cert", "key", "cacert", "user", "password")
    if values["discovery-proxy"] != "" and (endpoints or any(values[f"discovery-{name}"] for name in v3)):
        raise ConfigError(
            "both v2 discovery settings (discovery, discovery-proxy) and v3 discovery settings "
            "(discovery-token, discovery-endpoints, discovery-cert, discovery-key, discovery-cacert, "
            "discovery-user, discovery-password) are set")
    if (values["discovery-token"] != "") != bool(endpoints):
        raise ConfigError("both --discovery-token and --discovery-endpoints must be set")
    if not url:
        return
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        _, at, shown = url.rpartition("@")  # before it there may be a password
        raise ConfigError(f"--discovery={'...@' * bool(at)}{shown} is no URL of http or https")


def check_users(token: str) -> list[str]:
    """``--auth-token``. Returns warnings. ConfigError."""
    try:
        tokens_of(token, 1.0)
        kind, options = options_of(token)
    except ValueError as error:
        raise ConfigError(f"--auth-token: {error}") from None
    if kind != "jwt":
        return []
    from proxy.auth.jwt import OPTIONS  # loaded by now

    return [f"--auth-token: {name} is no option of jwt, and has no effect"
            for name in options if name not in OPTIONS]


def bcrypt_cost(values: Values) -> list[str]:
    """Replaces a cost out of bcrypt's range by the usual one, as etcd does. Returns warnings."""
    cost = values["bcrypt-cost"]
    if _LEAST_COST <= cost <= _MOST_COST:
        return []
    values.values["bcrypt-cost"] = _USUAL_COST
    return [f"--bcrypt-cost={cost} is not {_LEAST_COST} to {_MOST_COST}: {_USUAL_COST} it is"]


def replace_zeros(values: Values) -> None:
    """A zero means the default, as in etcd. Taken by its word, it would let no client in, for example."""
    for name in _ZERO_IS_DEFAULT:
        if not values[name]:
            values.values[name] = convert(SERVER_FLAGS[name], SERVER_FLAGS[name].default)


def progress_interval(values: Values) -> list[str]:
    """Raises an interval that is too short, as etcd does. Returns warnings."""
    given = values["watch-progress-notify-interval"]
    if not 0 < given < MIN_PROGRESS_INTERVAL_MS:
        return []
    values.values["watch-progress-notify-interval"] = MIN_PROGRESS_INTERVAL_MS
    return [f"--watch-progress-notify-interval={given}ms is too short: {MIN_PROGRESS_INTERVAL_MS}ms it is"]


def check_limits(values: Values) -> None:
    """Values that would shut out every client are refused, and those that no node can have."""
    _check_texts(values)
    if values["order-log-bytes"] < LEAST_ORDER_LOG_BYTES:
        raise ConfigError(f"--order-log-bytes must be at least {LEAST_ORDER_LOG_BYTES}")
    try:
        Bounds.parse(values["growth-bounds"])
    except ValueError as error:
        raise ConfigError(f"--growth-bounds: {error}") from error
    for name in (
        "client-head-timeout", "client-stall-timeout", "http1-idle-timeout", "lease-checkpoint-interval",
    ):
        if values[name] < _LEAST_MS:
            raise ConfigError(f"--{name} must be at least 1s")
    for name, least in _LEAST.items():
        if values[name] != AUTO and values[name] < least:
            raise ConfigError(f"--{name} must be at least {least}")
    if values["max-learners"] < 0:
        raise ConfigError("--max-learners must be at least 0")
    for name, most in _MOST.items():
        if values[name] > most:
            raise ConfigError(f"--{name} must be at most {most}")
    if not _LEAST_HEADER_BYTES <= values["max-header-bytes"] <= _MOST_HEADER_BYTES:
        raise ConfigError(
            f"--max-header-bytes must be at least {_LEAST_HEADER_BYTES} and at most {_MOST_HEADER_BYTES}")


def check_peer_port(
    listen: tuple[Url, ...], members: tuple[Url, ...], key_file: str, tls: PeerTls | None, values: Values,
    alone: bool,
) -> list[str]:
    """A peer port without a key believes every peer (decision 116): refused unless asked for. Of a host that
    may be ``alone`` it takes none. Returns warnings."""
    insecure = values["peer-insecure"]
    if key_file:
        if insecure:
            raise ConfigError(
                "--peer-insecure and --peer-key-file exclude each other: with a key file the peer port is "
                "secured")
        return []
    if tls is not None and tls.knows_peers:
        if insecure:
            raise ConfigError(
                "--peer-insecure and --peer-trusted-ca-file exclude each other: peers show certificates")
        return []
    beyond = next((u for u in listen if not u.is_loopback), None)
    if beyond is not None and not insecure and alone and tls is None:
        return [
            f"{beyond.text} takes no peers, as nothing tells who they are. For a further member: "
            f"{_peer_key_ways(values['config-file'])}"]
    if beyond is not None and not insecure:
        raise ConfigError(
            f"--listen-peer-urls={beyond.text} would accept any peer from other machines: "
            f"{_peer_key_ways(values['config-file'])}")
    if beyond is not None:
        how = "peers talk in clear" if tls is None else "peers show no certificate of an authority"
        return [f"--peer-insecure: {how}, and any program that reaches {beyond.text} may act as a peer"]
    if insecure:
        return ["--peer-insecure: every user of this machine may act as a peer"]
    if tls is None and not all(u.is_loopback for u in members):
        return [
            "peers talk in clear and unauthenticated: give every host the same --peer-key-file "
            "(muster peer-keys FILE)"]
    return []


def _peer_key_ways(file: str) -> str:
    """What an operator may do, in the words of the configuration file if there is one."""
    if file:
        return (
            f"in {file}, give every host the same peer-transport-security: {{key-file: FILE}} (muster "
            "peer-keys FILE makes it), or https URLs and a trusted-ca-file: there, or say "
            "peer-insecure: true")
    return PEER_KEY_WAYS
