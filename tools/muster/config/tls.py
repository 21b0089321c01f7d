"""TLS as the flags ask for it, checked with etcd's words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from cluster.settings import PeerTls, Tls
from proxy.tls.contexts import ALWAYS_ON, CIPHERS, NOT_HERE, Credentials
from tools.muster.config.parse import ConfigError, Values
from tools.muster.machine.zmtp.tls import PeerCredentials

_SECURE = ("https:", "unixs:")
NO_METRICS_PAIR = "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
UNLIKE = "peers of one cluster talk over https, all of them, or over http: some peer URLs differ"


def tls_of(
    values: Values, client_urls: Sequence[str], metrics_urls: Sequence[str]
) -> tuple[Tls | None, list[str]]:
    """TLS towards clients, None without it, and warnings. With --auto-tls the files are yet to come."""
    warnings: list[str] = []
    cert, key = values["cert-file"], values["key-file"]
    auto = values["auto-tls"]
    if auto and (cert or key):
        warnings.append("ignoring client auto TLS since certs given")
        auto = False
    wanted = _versions_and_ciphers(values, warnings)
    has_certificate = bool(cert or key or auto)
    for url in client_urls:
        if not url.startswith(_SECURE):
            warnings += _ignored(url, has_certificate, values, "")
        elif not has_certificate:
            raise ConfigError(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url "
                f"{url} with HTTPS scheme")
    if not has_certificate and any(url.startswith(_SECURE) for url in metrics_urls):
        raise ConfigError(NO_METRICS_PAIR)
    if not any(url.startswith(_SECURE) for url in (*client_urls, *metrics_urls)):
        return None, warnings
    if not auto and not (cert and key):
        raise ConfigError(f"KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")
    _check_pair(values["client-cert-file"], values["client-key-file"])
    names, hosts = values["client-cert-allowed-cn"], values["client-cert-allowed-hostname"]
    _check_allowed(names, hosts)
    warnings += _unasked(values, "client", "")
    return Tls(
        cert_file=_absolute(cert),
        key_file=_absolute(key),
        client_cert_auth=values["client-cert-auth"],
        trusted_ca_file=_absolute(values["trusted-ca-file"]),
        crl_file=_absolute(values["client-crl-file"]),
        allowed_cns=names,
        allowed_hostnames=hosts,
        **wanted,
    ), warnings


def peer_tls_of(
    values: Values, listen: Sequence[str], named: Sequence[str]
) -> tuple[PeerTls | None, list[str]]:
    """TLS between hosts, None without it, and warnings; ``named``: the peer URLs that hosts know of each
    other. A proxy has no ``listen``. With --peer-auto-tls the files are yet to come."""
    warnings: list[str] = []
    cert, key, auto = values["peer-cert-file"], values["peer-key-file"], values["peer-auto-tls"]
    if auto and cert:
        warnings.append("ignoring peer auto TLS since certs given")
    auto = auto and not (cert or key)
    names, hosts = values["peer-cert-allowed-cn"], values["peer-cert-allowed-hostname"]
    if cert and not key:
        raise ConfigError(f"KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")
    if cert:  # etcd looks at them for http URLs, too
        _check_pair(values["peer-client-cert-file"], values["peer-client-key-file"])
        _check_allowed(names, hosts)
    secure = [url.startswith("https:") for url in (*listen, *named)]
    if not any(secure):
        for url in listen:
            warnings += _ignored(url, bool(cert), values, "peer-")
        return None, warnings
    if not all(secure):
        raise ConfigError(UNLIKE)
    versions = _versions_and_ciphers(values, [])  # tls_of has given the warnings
    if auto:
        return PeerTls("", "", verifies=False, **versions), warnings
    if not cert and not key:
        what = f"listen on TLS for {listen[0].partition('://')[2]}" if listen else f"dial {named[0]}"
        raise ConfigError(
            f"cannot {what}: KeyFile and CertFile are not presented "
            "(https peer URLs want --peer-cert-file and --peer-key-file, or --peer-auto-tls)")
    if not (cert and key):
        raise ConfigError(
            f"KeyFile and CertFile must both be present[key: {key}, cert: {cert}] (--peer-key-file and "
            "--peer-cert-file; a key of muster peer-keys goes with http peer URLs)")
    warnings += _unasked(values, "peer", "peer-")
    return PeerTls(
        cert_file=_absolute(cert),
        key_file=_absolute(key),
        client_cert_file=_absolute(values["peer-client-cert-file"]),
        client_key_file=_absolute(values["peer-client-key-file"]),
        client_cert_auth=values["peer-client-cert-auth"],
        trusted_ca_file=_absolute(values["peer-trusted-ca-file"]),
        crl_file=_absolute(values["peer-crl-file"]),
        allowed_cns=names,
        allowed_hostnames=hosts,
        by_address=not values["peer-skip-client-san-verification"],
        **versions,
    ), warnings


def _check_pair(cert: str, key: str) -> None:
    if bool(cert) != bool(key):
        raise ConfigError(
            "ClientKeyFile and ClientCertFile must both be present or both absent: "
            f"key: {key}, cert: {cert}]")


def _check_allowed(names: Sequence[str], hosts: Sequence[str]) -> None:
    if names and hosts:
        raise ConfigError(
            "AllowedCN and AllowedHostname are mutually exclusive "
            f'(cn="{",".join(names)}", hostname="{",".join(hosts)}")')


def _unasked(values: Values, whose: str, prefix: str) -> list[str]:
    """A warning of a list of names that nobody is asked for."""
    given = next((kind for kind in ("cn", "hostname") if values[f"{whose}-cert-allowed-{kind}"]), "")
    if not given or values[f"{prefix}client-cert-auth"] or values[f"{prefix}trusted-ca-file"]:
        return []
    return [
        f"--{whose}-cert-allowed-{given} refuses every {whose}: without --{prefix}trusted-ca-file none is "
        "asked for a certificate"]


def _ignored(url: str, has_certificate: bool, values: Values, prefix: str) -> list[str]:
    """Warnings of what an http URL ignores."""
    warnings = []
    auth, authorities = f"{prefix}client-cert-auth", f"{prefix}trusted-ca-file"
    if has_certificate:
        warnings.append(
            f"scheme is HTTP while key and cert files are present; ignoring key and cert files: {url}")
    elif values[authorities]:
        warnings.append(f"scheme is HTTP while --{authorities} is given; ignoring it for this URL: {url}")
    if values[auth]:
        warnings.append(
            f"scheme is HTTP while --{auth} is enabled; ignoring client cert auth for this URL: {url}")
    return warnings


def check_files(tls: Tls | PeerTls) -> None:
    """ConfigError if the files cannot be used."""
    try:
        PeerCredentials(tls) if isinstance(tls, PeerTls) else Credentials(tls)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _versions_and_ciphers(values: Values, warnings: list[str]) -> dict[str, Any]:
    """The fields that settings of clients and of peers share."""
    least, most = values["tls-min-version"], values["tls-max-version"]
    suites: tuple[str, ...] = values["cipher-suites"]
    for name in suites:
        if name not in CIPHERS and name not in ALWAYS_ON and name not in NOT_HERE:
            raise ConfigError(f'unexpected TLS cipher suite "{name}"')
    if most and least > most:
        raise ConfigError(f"min version ({least}) is greater than max version ({most})")
    if least == "TLS1.3" and suites:
        raise ConfigError("cipher suites cannot be configured when only TLS1.3 is enabled")
    usable = tuple(name for name in suites if name in CIPHERS)
    if suites and not usable:
        raise ConfigError(f"none of the TLS cipher suites {','.join(suites)} is available here for TLS 1.2")
    warnings += [
        f"the TLS cipher suite {name} is not available here, and is left out"
        for name in suites
        if name in NOT_HERE
    ]
    return {"cipher_suites": usable, "min_version": least, "max_version": most}


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""
