"""Answers about users and roles, in each format of ``--write-out``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.message import Message
from muster_client.pb import auth_pb2
from muster_client.pb import rpc_pb2 as pb

from cluster.gotext import prefix_end, quote, text
from tools.musterctl.printing.print_fields import header, line
from tools.musterctl.printing.printer import Printer, emit

_READS, _WRITES = (0, 2), (1, 2)  # authpb.Permission.Type


def _show(
    printer: Printer, r: Message, simple: Callable[[], None], fields: Callable[[], None] | None
) -> None:
    kind = printer.kind
    if kind == "simple":
        simple()
    elif kind == "fields" and fields is not None:
        header(r.header)  # type: ignore[attr-defined]
        fields()
    else:
        printer.message(r)


def done(printer: Printer, said: str, r: Message) -> None:
    """A change."""
    _show(printer, r, lambda: emit(said), lambda: None)


def status(printer: Printer, r: pb.AuthStatusResponse) -> None:
    enabled = "true" if r.enabled else "false"
    _show(
        printer, r, lambda: emit(f"Authentication Status: {enabled}\nAuthRevision: {r.authRevision}\n"), None
    )


def user(printer: Printer, name: str, r: pb.AuthUserGetResponse) -> None:
    _show(printer, r, lambda: emit(f"User: {name}\nRoles:{''.join(f' {role}' for role in r.roles)}\n"), None)


def users(printer: Printer, r: pb.AuthUserListResponse) -> None:
    _show(printer, r, lambda: _names(r.users), None)


def roles(printer: Printer, r: pb.AuthRoleListResponse) -> None:
    _show(
        printer,
        r,
        lambda: _names(r.roles),
        lambda: emit(f'"Roles" :{"".join(" " + quote(role.encode()) for role in r.roles)}\n'))


def _names(names: Sequence[str]) -> None:
    emit("".join(f"{name}\n" for name in names))


def role(printer: Printer, name: str, r: pb.AuthRoleGetResponse) -> None:
    def simple() -> None:
        emit(f"Role {name}\n")
        for title, kinds in (("Read", _READS), ("Write", _WRITES)):
            emit(f"KV {title}:\n")
            for perm in r.perm:
                if perm.permType in kinds:
                    emit(f"\t{_range(perm)}\n")

    def fields() -> None:
        for perm in r.perm:
            emit(f'"PermType" :  {auth_pb2.Permission.Type.Name(perm.permType)}\n')
            line("Key", quote(perm.key))
            line("RangeEnd", quote(perm.range_end))

    _show(printer, r, simple, fields)


def _range(perm: auth_pb2.Permission) -> str:
    if not perm.range_end:
        return text(perm.key)
    shown = f"[{text(perm.key)}, " + (
        "<open ended>" if perm.range_end == b"\0" else f"{text(perm.range_end)})")
    return shown + (
        f" (prefix {text(perm.key)})" if perm.key and prefix_end(perm.key) == perm.range_end else "")
