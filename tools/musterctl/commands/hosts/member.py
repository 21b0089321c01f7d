"""``member add``, ``remove``, ``update`` and ``promote``."""

from __future__ import annotations

from muster_client.pb import rpc_pb2

from cluster.gotext import GoError, parse_uint, quote
from cluster.members.urls import in_order
from tools.musterctl.client import session
from tools.musterctl.command import Exit, Invocation
from tools.musterctl.printing.printer import Simple, emit


def _member_id(invocation: Invocation) -> int:
    if len(invocation.args) != 1:
        raise Exit(128, "member ID is not provided")
    try:
        return parse_uint(invocation.args[0], 16)
    except GoError as error:
        raise Exit(128, f"bad member ID arg ({error}), expecting ID in Hex") from None


def _peer_urls(invocation: Invocation) -> list[str]:
    text = invocation.flags.string("peer-urls")
    if not text:
        raise Exit(128, "member peer urls not provided")
    return text.split(",")


def _checked(urls: list[str]) -> list[str]:
    """clientv3's checks before a request."""
    try:
        return in_order(urls)
    except ValueError as error:
        raise Exit(1, str(error)) from None


def add(invocation: Invocation) -> None:
    """Also prints the new host's settings."""
    args = invocation.args
    if not args:
        raise Exit(128, "member name not provided")
    if len(args) > 1:
        hints = [f", did you mean --peer-urls={arg}" for arg in args if arg.lower().startswith("http")]
        raise Exit(128, "too many arguments" + "".join(hints))
    urls = _peer_urls(invocation)
    s = session(invocation)
    request = rpc_pb2.MemberAddRequest(
        peerURLs=_checked(urls), isLearner=invocation.flags.switch("learner"))
    r = s.ask("Cluster/MemberAdd", request, rpc_pb2.MemberAddResponse)
    s.printer.member_changed("added", r.member.ID, r)
    if isinstance(s.printer, Simple):
        names = {m.ID: args[0] if m.ID == r.member.ID else m.name for m in r.members}
        hosts = [f"{names[m.ID]}={url}" for m in r.members for url in m.peerURLs]
        emit(f"\nETCD_NAME={quote(args[0])}\nETCD_INITIAL_CLUSTER={quote(','.join(hosts))}\n"
             f"ETCD_INITIAL_ADVERTISE_PEER_URLS={quote(','.join(urls))}\n"
             'ETCD_INITIAL_CLUSTER_STATE="existing"\n')


def remove(invocation: Invocation) -> None:
    member_id = _member_id(invocation)
    s = session(invocation)
    request = rpc_pb2.MemberRemoveRequest(ID=member_id)
    r = s.ask("Cluster/MemberRemove", request, rpc_pb2.MemberRemoveResponse)
    s.printer.member_changed("removed", member_id, r)


def update(invocation: Invocation) -> None:
    member_id = _member_id(invocation)
    urls = _peer_urls(invocation)
    s = session(invocation)
    request = rpc_pb2.MemberUpdateRequest(ID=member_id, peerURLs=_checked(urls))
    r = s.ask("Cluster/MemberUpdate", request, rpc_pb2.MemberUpdateResponse)
    s.printer.member_changed("updated", member_id, r)


def promote(invocation: Invocation) -> None:
    member_id = _member_id(invocation)
    s = session(invocation)
    request = rpc_pb2.MemberPromoteRequest(ID=member_id)
    r = s.ask("Cluster/MemberPromote", request, rpc_pb2.MemberPromoteResponse)
    s.printer.member_changed("promoted", member_id, r)
