"""Peers of one machine without key or certificate, known by their user only (decision 116).

Such a peer also listens at a Unix socket, in a folder of its user for each network namespace. Its loopback
port answers HTTP, and takes peers of the same user only: hosts of older versions, or without a shared
``/tmp``. The kernel tells the user of a connection's other end (``sock_diag(7)``). At other addresses HTTP is
all that is answered.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
import struct
from collections.abc import Iterator
from typing import Any

BASE = "/tmp"  # for all processes of a user, whatever their environment
NOT_OWN = "the other end is not this user's"
BEYOND = "without a key or certificates this host takes no peer from other machines"
GONE = "the other end is gone, or has not accepted yet"  # the user is not known
_NAMESPACE, _UID_MAP = "/proc/self/ns/net", "/proc/self/uid_map"
_NOBODY = 65534  # the kernel's number of a user unknown in this user namespace
_SOCK_DIAG, _BY_FAMILY, _REQUEST, _ERROR = 4, 20, 1, 2
_HEAD = struct.Struct("=IHHII")
_ANY = 0xFFFFFFFF
_ENDS = struct.Struct("!HH16s16s")
_LIVES = (1, 8)  # ESTABLISHED, CLOSE_WAIT


def is_near(host: str) -> bool:
    """Whether it is a loopback address, where the other end has to be this user's."""
    return _loopback(host) is not None


def path_of(host: str, port: int) -> str:
    """Where a peer of this user listens besides its loopback address; "" for other addresses, and without a
    known network namespace."""
    address = _loopback(host)
    if address is None:
        return ""
    with contextlib.suppress(OSError):
        return f"{_top()}/{os.stat(_NAMESPACE).st_ino}/{address}:{port}"
    return ""


def prepare(path: str) -> None:
    """Make the folders of a socket. OSError, also where another user has made one of them."""
    if not _is_sound(BASE):
        raise OSError(errno.EPERM, "other users may move what is there", BASE)
    for folder in _folders(path):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        info = os.lstat(folder)
        if not _is_own_folder(info):
            raise OSError(errno.EPERM, "it belongs to another user, or is no directory", folder)
        if stat.S_IMODE(info.st_mode) != 0o700:
            os.chmod(folder, 0o700)


def remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
        for folder in reversed([*_folders(path)]):
            os.rmdir(folder)  # unless others listen there


def may_dial(path: str) -> bool:
    """Whether there is a socket that only this user can have made."""
    try:
        if not _is_sound(BASE):
            return False
        for folder in _folders(path):
            info = os.lstat(folder)
            if not _is_own_folder(info) or info.st_mode & 0o077:
                return False
        info = os.lstat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISSOCK(info.st_mode) and info.st_uid == os.geteuid()


def refused(sock: socket.socket) -> str:
    """Why the other end of an accepted connection may be no peer; "" if it may."""
    try:
        near = is_near(str(sock.getsockname()[0]))
    except OSError:
        return GONE
    return foreign(sock) if near else BEYOND


def foreign(sock: socket.socket) -> str:
    """Why the other end of a loopback connection is not known to be this user's; "" if it is."""
    try:
        uid = _uid(sock.getpeername(), sock.getsockname())
    except OSError as e:
        if e.errno in (errno.ENOTCONN, errno.ENOENT):
            return GONE
        return f"{NOT_OWN}, as far as the kernel tells ({e.strerror})"
    if uid != os.geteuid() or (uid == _NOBODY and not _knows_all_users()):
        return f"{NOT_OWN}, but that of uid {uid}"
    return ""


def other_end(sock: socket.socket) -> str:
    """The process that dialled a Unix socket, for logs."""
    try:
        return f"process {process_of(sock)}"
    except OSError:
        return ""


def process_of(sock: socket.socket) -> int:
    """The process at the other end of a Unix socket; 0: this one cannot see it. OSError."""
    (pid,) = struct.unpack_from("=i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def _loopback(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    address = _address(host)
    return address if address is not None and address.is_loopback else None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_own_folder(info: os.stat_result) -> bool:
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()


def _top() -> str:
    return f"{BASE}/muster-{os.geteuid()}"


def _folders(path: str) -> Iterator[str]:
    yield os.path.dirname(os.path.dirname(path))
    yield os.path.dirname(path)


def _is_sound(folder: str) -> bool:
    """Whether other users cannot move what this user has there."""
    info = os.stat(folder)
    mine = info.st_uid in (0, os.geteuid())
    return mine and (not info.st_mode & 0o022 or bool(info.st_mode & stat.S_ISVTX))


def _knows_all_users() -> bool:
    with open(_UID_MAP, encoding="ascii") as file:
        return file.read().split() == ["0", "0", str(_ANY)]


def _uid(local: tuple[Any, ...], remote: tuple[Any, ...]) -> int:
    """The user of the TCP socket with these two addresses, its own first. OSError."""
    family, ends, *others = _ends(local, remote)
    asked = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ANY) + ends
    asked += struct.pack("=III", 0, _ANY, _ANY)  # any interface, no cookie
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as kernel:
        kernel.settimeout(1.0)  # the kernel has answered once it has taken the question
        kernel.send(_HEAD.pack(_HEAD.size + len(asked), _BY_FAMILY, _REQUEST, 1, 0) + asked)
        answer = kernel.recv(4096)
    try:
        if _HEAD.unpack_from(answer)[1] == _ERROR:
            (code,) = struct.unpack_from("=i", answer, _HEAD.size)
            raise OSError(-code, os.strerror(-code))
        _, state, _, _ = struct.unpack_from("=BBBB", answer, _HEAD.size)
        found = answer[_HEAD.size + 4 : _HEAD.size + 4 + _ENDS.size]
        uid, inode = struct.unpack_from("=II", answer, _HEAD.size + 4 + 48 + 12)
    except struct.error:
        raise OSError(errno.EPROTO, os.strerror(errno.EPROTO)) from None
    # a listener answers for connections that do not exist; a closed end has no inode
    if found not in (ends, *others) or state not in _LIVES or not inode:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
    return int(uid)


def _ends(local: tuple[Any, ...], remote: tuple[Any, ...]) -> tuple[Any, ...]:
    """A connection's family, and its ends as the kernel has them: IPv4 addresses may be of IPv6 sockets."""
    addresses = [address for end in (local, remote) if (address := _address(end[0])) is not None]
    if len(addresses) < 2:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    packed = [address.packed for address in addresses]
    forms = [[one.ljust(16, b"\0") for one in packed]]
    if addresses[0].version == 4:
        forms.append([b"\0" * 10 + b"\xff\xff" + one for one in packed])
    family = socket.AF_INET if addresses[0].version == 4 else socket.AF_INET6
    return family, *(_ENDS.pack(local[1], remote[1], *form) for form in forms)
