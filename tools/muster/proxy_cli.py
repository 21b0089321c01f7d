"""``muster proxy``: fronts alone, on a machine without a member."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTP_PORT, HTTPS_PORT, HTTPException, HTTPResponse
from typing import TYPE_CHECKING, NoReturn, TypeVar
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from muster_client.wire.endpoints import Endpoint, trusting

from cluster.members.described import Running
from cluster.settings import Peer
from tools.muster.config import settings as config
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.kinds import Flag, Kind
from tools.muster.config.parse import ConfigError, Values, convert, resolve
from tools.muster.config.settings import ServerConfig, with_agreed_layout, with_members
from tools.muster.config.urls import dialable, parse_peer_url
from tools.muster.flag_docs import flag_list
from tools.muster.host import ports, rundir, serve
from tools.muster.host.identity import bootstrap, joining
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.host.identity.keys import with_keys
from tools.muster.host.supervising.supervisor import AGAIN, Logger
from tools.muster.machine.names import Unawaited
from tools.muster.proxy_mode import fronts

if TYPE_CHECKING:
    from cluster.pb import rpc_pb2

ASK_LIMIT_S = 30.0  # to find a member that answers
REFRESH_S = 30.0
_ANSWER_S = 5.0
_NO_MEMBER = "no member of the cluster answers at its peer port"
_CLOSED_IN_S = 1.0  # some servers answer no end of TLS
T = TypeVar("T")
Layout = tuple[int, int]  # shards and placement depth

_TAKEN = (
    "name", "data-dir", "run-dir", "port-wait", "fronts", "cpus", "shards", "shard-depth",
    "listen-client-urls", "listen-client-http-urls", "listen-metrics-urls",
    "initial-cluster", "initial-cluster-token", "peer-key-file", "peer-insecure",
    "peer-cert-file", "peer-client-cert-file", "peer-client-key-file", "peer-trusted-ca-file",
    "peer-crl-file", "peer-cert-allowed-cn", "peer-cert-allowed-hostname", "peer-auto-tls",
    "heartbeat-interval", "election-timeout", "max-request-bytes", "max-txn-ops", "max-concurrent-streams",
    "grpc-keepalive-min-time", "grpc-keepalive-interval", "grpc-keepalive-timeout", "socket-reuse-port",
    "watch-progress-notify-interval", "cors",
    "cert-file", "key-file", "client-cert-auth", "trusted-ca-file", "client-crl-file",
    "client-cert-allowed-hostname", "client-cert-allowed-cn", "auto-tls", "self-signed-cert-validity",
    "cipher-suites", "tls-min-version", "tls-max-version", "auth-token", "auth-token-ttl", "bcrypt-cost",
    "enable-distributed-tracing", "distributed-tracing-address", "distributed-tracing-service-name",
    "distributed-tracing-instance-id", "distributed-tracing-sampling-rate",
    "host-whitelist", "log-level", "log-format", "log-outputs",
    "enable-log-rotation", "log-rotation-config-json", "help",
)  # fmt: skip
_WORDS = {
    "name": "this proxy's name, in its log",
    "data-dir": "directory of the proxy's lock and sockets; it keeps no data",
    "run-dir": "directory of the proxy's sockets; of a sticky one, as /tmp, the subdirectory muster; "
    "default <data-dir>/run, or a short one where that path is too long",
    "port-wait": "time that a start waits for ports that are still in use",
    "fronts": "number of processes that share the client port",
    "cpus": 'CPUs to pin processes to: "auto" (one each, if enough are free), "none", or a list: 0-3,6',
    "shards": "number of shards that the cluster was made with; not needed: members tell it",
    "shard-depth": "the cluster's value; not needed: members tell it",
    "initial-cluster": "members to ask for all members, in place of --endpoints: name=peer URL,...",
    "initial-cluster-token": "without effect: members tell which cluster they are of",
    "peer-key-file": "with --peer-cert-file its key; else the cluster's key file, if its members have one",
    "peer-cert-file": "certificate to show to members, where their peer URLs are https",
    "peer-client-cert-file": "certificate to show to members in place of --peer-cert-file",
    "peer-trusted-ca-file": "authorities of members' certificates; default: the machine's own",
    "peer-crl-file": "list of revoked certificates of members, in PEM or DER",
    "peer-cert-allowed-cn": "a member's certificate must have one of these common names",
    "peer-cert-allowed-hostname": "a member's certificate must name one of these hosts",
    "peer-auto-tls": "as the members have it: https peer URLs, and certificates that authenticate no member",
    "peer-insecure": "without a key file, dial members of another user on this machine, too",
    "heartbeat-interval": "as the members have it",
    "election-timeout": "as the members have it",
    "max-request-bytes": "largest client request, as the members have it",
    "max-txn-ops": "operations in a transaction, as the members have it",
    "auth-token": "tokens of users, as the members have it",
    "auth-token-ttl": "as the members have it",
    "bcrypt-cost": "as the members have it",
}
_USAGE = """A front on a machine without a member. It takes clients' requests, sends each to the member that
leads the key's shard, and serves watches from the members' events. It has no vote and keeps no data. To its
clients it is one more endpoint of the cluster. It needs the members' peer ports.

Usage:

  muster proxy --endpoints URL,... [flags]                       members to ask for all members
  muster proxy --initial-cluster name=peer URL,... [flags]       the same, by their peer ports

Flags:
"""
FLAGS = {
    "endpoints": Flag(
        "endpoints", Kind.LIST, "", "client URLs of members, asked for the members' peer URLs"),
    "cacert": Flag(
        "cacert", Kind.STR, "", "authorities to trust at --endpoints by https; default: the machine's"),
    "cert": Flag("cert", Kind.STR, "", "certificate to show to --endpoints"),
    "key": Flag("key", Kind.STR, "", "key of --cert"),
    **{name: replace(SERVER_FLAGS[name], help=_WORDS.get(name, SERVER_FLAGS[name].help)) for name in _TAKEN},
}
FLAGS["data-dir"] = replace(FLAGS["data-dir"], default="proxy.muster")
FLAGS["initial-cluster"] = replace(FLAGS["initial-cluster"], default="")


@dataclass(slots=True, frozen=True)
class _Secured:
    """How a connection to an endpoint is secured."""

    made: ssl.SSLContext
    server_name: str = ""  # the endpoint's host

    def context(self) -> ssl.SSLContext:
        return self.made


@dataclass(slots=True, frozen=True)
class Files:
    """Certificates for requests to members by https. No request goes through a proxy of the environment."""

    cacert: str = ""  # "": the machine's authorities
    cert: str = ""
    key: str = ""

    def url(self, endpoint: str) -> str:
        """An endpoint with its scheme: https if it says so, or says nothing and there are files."""
        if "://" in endpoint:
            return endpoint.rstrip("/")
        return f"{'https' if self.cacert or self.cert else 'http'}://{endpoint}"

    def context(self, endpoint: str) -> ssl.SSLContext | None:
        """For a request by HTTP. ValueError, ConfigError."""
        if urlsplit(self.url(endpoint)).scheme != "https":
            return None
        try:
            made = trusting(self.cacert)
            if self.cert:
                made.load_cert_chain(self.cert, self.key or None, password="")
        except OSError as e:
            raise ConfigError(f"cannot use --cacert, --cert and --key: {e.strerror or e}") from None
        return made

    def dialled(self, endpoint: str) -> Endpoint:
        """For a request by gRPC; grpcio would take a common name for a server's. ValueError, ConfigError."""
        at, context = urlsplit(self.url(endpoint)), self.context(endpoint)
        if context is None:
            return Endpoint(endpoint, at.hostname or "", at.port or HTTP_PORT)
        context.set_alpn_protocols(["h2"])
        return Endpoint(endpoint, at.hostname or "", at.port or HTTPS_PORT, tls=_Secured(context))

    def page(self, endpoint: str, path: str) -> HTTPResponse:
        """What is there. OSError, HTTPException, ValueError, ConfigError."""
        direct = build_opener(ProxyHandler({}), HTTPSHandler(context=self.context(endpoint)))
        answer: HTTPResponse = direct.open(self.url(endpoint) + path, timeout=_ANSWER_S)
        return answer


NO_FILES = Files()


def run(args: list[str]) -> int:
    """Run the fronts until told to stop; the exit code."""
    given = resolve(FLAGS, args, {}, use_environ=False)
    if given["help"]:
        print(_USAGE)
        print(flag_list(FLAGS))
        return 0
    files = Files(given["cacert"], given["cert"], given["key"])
    if bool(files.cert) != bool(files.key):
        raise ConfigError(f"KeyFile and CertFile must both be present[key: {files.key}, cert: {files.cert}]")
    # an environment may lack what they are made of: an empty list is none
    by_endpoints, by_list = bool(given["endpoints"]), bool(given["initial-cluster"].strip(", "))
    if by_endpoints == by_list:
        raise ConfigError(
            "give either --endpoints or --initial-cluster a value, so that the members can be found")
    _check(given["endpoints"], files)
    settings = config.build(_server_values(given))
    log = serve.log_of(settings)
    for warning in settings.warnings:
        log.warning(warning)
    if by_endpoints:
        cluster_id, peers = members_of(given["endpoints"], files, log)
        peer_urls = [url for peer in peers for url in peer.peer_urls]
    else:
        peer_urls = [url for _, urls in settings.initial_cluster for url in urls]
    settings = with_members(settings, peer_urls)
    os.umask(0o077)  # the sockets are this user's, whatever the run directory's mode
    os.makedirs(settings.data_dir, mode=0o700, exist_ok=True)
    settings = with_keys(settings)
    if os.path.exists(bootstrap.member_dir(settings.data_dir)):
        raise ConfigError(f"{settings.data_dir} is the data directory of a member: a proxy needs its own")
    if by_endpoints:
        by_peers = {url: partial(_layout_at_peer, url, cluster_id, settings) for url in peer_urls}
        layout = layout_of(given["endpoints"], files, log, by_peers)
    else:  # IDs of members that were added do not follow from the list
        asks = {url: partial(_cluster_at_peer, url, settings) for url in peer_urls}
        cluster_id, peers, layout = _first_answer(asks, log)
    settings = with_agreed_layout(settings, *layout)
    lock = rundir.DataDirLock(settings.data_dir)
    try:
        ports.check(settings, None, log)
        identity = Identity(cluster_id, 0, 0, settings.shards, settings.shard_depth, peers)
        members = Members(cluster_id, peers, given["endpoints"], files)
        named = {p.name: list(p.peer_urls) for p in peers}
        log.info(f"starting a proxy of cluster {cluster_id:x}", members=named)
        while (code := fronts.run(
            settings, identity, log,
            lambda run_dir: fronts.specs(settings, identity, run_dir, lambda: members.peers),
            members.refresh if by_endpoints else None)) == AGAIN:
            pass  # the run directory is made again
        return code
    finally:
        lock.release()


def _check(endpoints: Sequence[str], files: Files) -> None:
    """ConfigError: one of them can never answer."""
    for endpoint in endpoints:
        with contextlib.suppress(ValueError):
            at = urlsplit(files.url(endpoint))
            if at.scheme in ("http", "https") and at.port != 0:
                continue
        raise ConfigError(f"--endpoints: {endpoint} is no endpoint such as http://10.0.0.1:2379")


class Members:
    """Those of the cluster, as its endpoints tell them."""

    def __init__(
        self, cluster_id: int, peers: tuple[Peer, ...], endpoints: Sequence[str], files: Files = NO_FILES
    ) -> None:
        """``peers``: of the start."""
        self.peers = peers
        self._cluster_id, self._endpoints, self._files = cluster_id, endpoints, files
        self._thread = Unawaited(1, "members")

    async def refresh(self) -> NoReturn:
        """Ask at every interval: running fronts hear of changes from members, later ones cannot."""
        while True:
            await asyncio.sleep(REFRESH_S)
            for endpoint in self._endpoints:
                # what is wrong with an endpoint, or with files that are just replaced, may pass
                with contextlib.suppress(OSError, ConfigError):
                    cluster_id, peers = await asyncio.get_running_loop().run_in_executor(
                        self._thread, _members_at, endpoint, self._files)
                    if cluster_id == self._cluster_id:
                        self.peers = peers
                        break


def _server_values(given: Values) -> Values:
    """A proxy's flags as a server's, with the others at their defaults."""
    defaults = {f.name: convert(f, f.default) for f in SERVER_FLAGS.values()}
    sources = {k: v for k, v in given.sources.items() if k in defaults}
    ours = {k: v for k, v in given.values.items() if k in defaults}
    values = Values({**defaults, **ours}, sources, given.rest)
    values.values["proxy"] = "on"
    values.values["proxy-failure-wait"] = -1  # of version 3: its fronts answer for health by themselves
    values.values["advertise-client-urls"] = values["listen-client-urls"]
    values.sources["advertise-client-urls"] = "flag"
    values.values["data-dir"] = values["data-dir"] or FLAGS["data-dir"].default
    values.sources["data-dir"] = "flag"  # a proxy has a default of its own
    return values


def members_of(
    endpoints: Sequence[str], files: Files = NO_FILES, log: Logger | None = None
) -> tuple[int, tuple[Peer, ...]]:
    """Cluster ID and members, from the first endpoint that answers. ``log``: each other one, once."""
    return _first_answer({endpoint: partial(_members_at, endpoint, files) for endpoint in endpoints}, log)


def _first_answer(asks: Mapping[str, Callable[[], T]], log: Logger | None) -> T:
    """Of questions by where they are asked; each may raise ConnectionError. ConfigError: none in time."""
    deadline = time.monotonic() + ASK_LIMIT_S
    told: set[str] = set()
    while True:
        silent: dict[str, str] = {}
        for endpoint, ask in asks.items():
            try:
                return ask()
            except ConnectionError as e:
                last, silent[endpoint] = f"{endpoint}: {e}", str(e)
        for endpoint, reason in silent.items():
            if log is not None and endpoint not in told:
                told.add(endpoint)
                log.warning("cannot reach a member; trying again", endpoint=endpoint, reason=reason,
                            limit_s=ASK_LIMIT_S)
        if time.monotonic() > deadline:
            raise ConfigError(f"no member answered within {ASK_LIMIT_S:g} s; the last: {last}")
        time.sleep(1)


def _members_at(endpoint: str, files: Files) -> tuple[int, tuple[Peer, ...]]:
    """ConnectionError: the endpoint does not say."""
    import grpc
    from google.protobuf.message import DecodeError
    from muster_client.wire.http2.answers import CallError
    from muster_client.wire.http2.dialing import DialError

    refusals = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED
    try:
        answer = asyncio.run(_member_list(files.dialled(endpoint)))
    except (DialError, DecodeError, ValueError) as e:
        raise ConnectionError(str(e)) from None
    except CallError as e:
        if e.code not in refusals:
            raise ConnectionError(e.details or e.code.name) from None
        refused = e.details  # there are users, and a proxy is none of them
    else:
        members = _peers((m.ID, m.name, m.peerURLs) for m in answer.members)
        return answer.header.cluster_id, members
    try:
        return _public_members_at(endpoint, files)
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as e:
        raise ConnectionError(
            f"{refused}; /v2/members: {e}: without it name the members by --initial-cluster") from None


async def _member_list(endpoint: Endpoint) -> rpc_pb2.MemberListResponse:
    """By gRPC. DialError, CallError, DecodeError."""
    from muster_client.wire.connections import Connection
    from muster_client.wire.http2.dialing import dial

    from cluster.pb import rpc_pb2

    asyncio.get_running_loop().set_default_executor(Unawaited(1, "names"))  # else the next endpoint waits
    connection = Connection(endpoint)
    line = connection.line = await dial(endpoint, lambda: None)
    try:
        asked = rpc_pb2.MemberListRequest().SerializeToString()
        answer = await connection.unary("/etcdserverpb.Cluster/MemberList", asked, _ANSWER_S, ())
    finally:
        line.close("the question is over")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSED_IN_S):
                await line.gone.wait()
    return rpc_pb2.MemberListResponse.FromString(answer)


def _public_members_at(endpoint: str, files: Files) -> tuple[int, tuple[Peer, ...]]:
    """What version 2 tells everybody, also while there are users. OSError, HTTPException,
    ValueError, KeyError, TypeError."""
    with files.page(endpoint, "/v2/members") as answer:
        cluster_id = int(answer.headers["X-Etcd-Cluster-Id"], 16)
        members = json.load(answer)["members"]
    return cluster_id, _peers((int(m["id"], 16), m["name"], m["peerURLs"]) for m in members)


def layout_of(
    endpoints: Sequence[str], files: Files = NO_FILES, log: Logger | None = None,
    by_peers: Mapping[str, Callable[[], Layout]] | None = None,
) -> Layout:
    """The cluster's, from the first that answers. Peer ports are asked last (``by_peers``): a client URL may
    serve gRPC alone."""
    asks: dict[str, Callable[[], Layout]] = {
        endpoint: partial(_layout_at, endpoint, files) for endpoint in endpoints}
    return _first_answer(asks | dict(by_peers or {}), log)


def _layout_at_peer(peer_url: str, cluster_id: int, settings: ServerConfig) -> Layout:
    """ConnectionError: no member of this cluster says it."""
    running = _running_at(peer_url, settings)
    if running.cluster_id != cluster_id:
        raise ConnectionError(_NO_MEMBER)
    return running.shards, running.depth


def _cluster_at_peer(peer_url: str, settings: ServerConfig) -> tuple[int, tuple[Peer, ...], Layout]:
    """Cluster ID, members and layout. ConnectionError."""
    running = _running_at(peer_url, settings)
    peers = _peers((m.member_id, m.name, m.peer_urls) for m in running.members)
    return running.cluster_id, peers, (running.shards, running.depth)


def _running_at(peer_url: str, settings: ServerConfig) -> Running:
    """As ``muster --proxy on`` asks. ConnectionError."""
    at = parse_peer_url(peer_url)
    try:
        running = joining.ask(
            [(at.host, at.port)], settings.peer_key_file, settings.peer_tls, own_user=settings.own_user_peers)
    except (ConfigError, ValueError, OSError) as e:
        raise ConnectionError(str(e)) from None
    if running is None:
        raise ConnectionError(_NO_MEMBER)
    return running


def _layout_at(endpoint: str, files: Files) -> Layout:
    """ConnectionError: the endpoint does not say."""
    try:
        with files.page(endpoint, "/muster/placement") as answer:
            found = json.load(answer)
        return int(found["shards"]), int(found["depth"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as e:
        raise ConnectionError(f"/muster/placement: {e}") from None


def _peers(members: Iterable[tuple[int, str, Iterable[str]]]) -> tuple[Peer, ...]:
    """Those that can be dialled. ConnectionError: there are none."""
    peers = []
    for member_id, name, peer_urls in members:
        urls = [url for url in map(dialable, peer_urls) if url is not None]
        if urls:
            told = tuple(url.text for url in urls)
            peers.append(Peer(member_id, name, urls[0].host, urls[0].port, told))
    if not peers:
        raise ConnectionError("it names no member with a peer URL that can be dialled")
    return tuple(peers)
