"""URLs of flags and of members as etcd 3.5 reads them: by Go's ``net/url`` and ``types.NewURLs``, with their
errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from cluster.gotext import quote

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_SPACES = "".join(c for c in map(chr, range(0x3001)) if c.isspace() and not "\x1c" <= c <= "\x1f")  # Go's
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PORT = re.compile(r"(?::[0-9]*)?")
_USER = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")
_ESCAPE = re.compile(r"%(?:[0-9A-Fa-f]{2})?")
_HOST = re.compile(r"[A-Za-z0-9!$&'()*+,;=:\[\]<>\"\-_.~%\x80-\U0010ffff]*")


def trimmed(url: str) -> str:
    """Without Go's white space around, and the scheme in small letters, as etcd keeps it."""
    url = url.strip(_SPACES)
    found = _SCHEME.match(url)
    return url if found is None else found[0].lower() + url[found.end() :]


def in_order(urls: Iterable[str]) -> list[str]:
    """Peer URLs without spaces around, sorted. ValueError, in etcd's words, about the first that is none."""
    found = [url.strip(_SPACES) for url in urls]
    if wrong := next(filter(None, map(mistake, found)), ""):
        raise ValueError(wrong)
    return sorted(found)


def mistake(url: str) -> str:
    """Why etcd takes this for no URL of a server; "": it does."""
    before, _, fragment = url.partition("#")
    wrong, scheme, host, path = _parsed(before, url)
    if wrong:
        return f"parse {quote(before)}: {wrong}"
    if wrong := _wrong_escape(fragment):
        return f"parse {quote(url)}: {wrong}"
    if scheme in ("unix", "unixs"):
        return ""  # from 3.5.13 on; before, etcd wanted a port
    if scheme not in ("http", "https"):
        return f"URL scheme must be http, https, unix, or unixs: {url}"
    if not _has_port(host):
        return f'URL address does not have the form "host:port": {url}'
    return f"URL must not contain a path: {url}" if path else ""


def can_be_a_hosts(url: str) -> bool:
    """Whether a host of muster can have a URL that etcd takes: with a port, an IPv6 address in brackets."""
    try:
        parts = urlsplit(url)
        return parts.port is not None and not parts.path
    except ValueError:
        return False


def _parsed(before: str, url: str) -> tuple[str, str, str, str]:
    """Go's error, or scheme, host and path."""
    if _CONTROL.search(url):
        return "net/url: invalid control character in URL", "", "", ""
    if before.startswith(":"):
        return "missing protocol scheme", "", "", ""
    found = _SCHEME.match(before)
    scheme, rest = (found[1].lower(), before[found.end() :]) if found else ("", before)
    rest = rest.partition("?")[0]
    if not rest.startswith("/"):
        if found:
            return "", scheme, "", ""
        colon = ":" in rest.partition("/")[0]
        wrong = "first path segment in URL cannot contain colon" if colon else _wrong_escape(rest)
        return wrong, "", "", rest
    host, path = "", rest
    if rest.startswith("//") and (found or not rest.startswith("///")):
        authority, slash, below = rest[2:].partition("/")
        user, _, host = authority.rpartition("@")
        if wrong := _wrong_host(host) or _wrong_user(user):
            return wrong, "", "", ""
        path = slash + below
    return _wrong_escape(path), scheme, host, path


def _wrong_user(user: str) -> str:
    if not _USER.fullmatch(user):
        return "net/url: invalid userinfo"
    name, _, password = user.partition(":")
    return _wrong_escape(name) or _wrong_escape(password)


def _wrong_host(host: str) -> str:
    name, port = host, ""
    if host.startswith("["):
        end = host.rfind("]")
        if end < 0:
            return "missing ']' in host"
        name, port = host[: end + 1], host[end + 1 :]
    elif ":" in host:
        name, _, port = host.rpartition(":")
        port = f":{port}"
    if not _PORT.fullmatch(port):
        return f"invalid port {quote(port)} after host"
    zone = name.find("%25") if host.startswith("[") else -1
    for escape in _ESCAPE.finditer(name):
        low = len(escape[0]) == 3 and escape[0][1] < "8" and escape[0] != "%25"
        if len(escape[0]) < 3 or (low and not 0 <= zone < escape.start()):
            return _bad_escape(host, escape.start())
    taken = _HOST.match(name)
    assert taken is not None, "it may be empty"
    at = taken.end()
    return f"invalid character {quote(name[at])} in host name" if at < len(name) else ""


def _wrong_escape(text: str) -> str:
    broken = next((e for e in _ESCAPE.finditer(text) if len(e[0]) < 3), None)
    return "" if broken is None else _bad_escape(text, broken.start())


def _bad_escape(text: str, at: int) -> str:
    return f"invalid URL escape {quote(text[at : at + 3])}"


def _has_port(host: str) -> bool:
    """As ``net.SplitHostPort``."""
    name, colon, port = host.rpartition(":")
    if not colon or "[" in port or "]" in port:
        return False
    if name.startswith("["):
        return name.find("]") == len(name) - 1 and "[" not in name[1:]
    return not set(":[]") & set(name)
