"""``--auto-tls`` and ``--peer-auto-tls``: self-signed certificates in the data directory, as etcd makes them.

They encrypt and do not authenticate: clients need ``--insecure-skip-tls-verify``, or the certificate. An
existing certificate stays, even an expired one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tools.muster.config.parse import ConfigError
from tools.muster.config.settings import ServerConfig


def with_certificate(config: ServerConfig) -> ServerConfig:
    """The same, with the files of the two flags where given. ConfigError."""
    peers = config.peer_tls is not None and not config.peer_tls.cert_file
    clients = config.tls is not None and not config.tls.cert_file
    if not peers and not clients:
        return config
    from tools.muster.host.identity.self_signed import self_signed  # 8 MB that other hosts do not need

    def made(folder: str, hosts: list[str]) -> tuple[str, str]:
        flag = "--auto-tls" if folder == "client" else "--peer-auto-tls"
        try:
            return self_signed(
                Path(config.data_dir, "fixtures", folder), hosts, config.values["self-signed-cert-validity"]
            )
        except OSError as error:
            raise ConfigError(
                f"cannot write the certificate of {flag} {error.filename}: {error.strerror}") from None

    if config.tls is not None and clients:
        urls = (*config.listen_client, *config.listen_http, *config.listen_metrics)
        cert, key = made("client", [u.host for u in urls if u.scheme in ("https", "unixs")])
        config = replace(config, tls=replace(config.tls, cert_file=cert, key_file=key))
    if config.peer_tls is not None and peers:
        cert, key = made("peer", [u.host for u in config.listen_peer])
        config = replace(config, peer_tls=replace(config.peer_tls, cert_file=cert, key_file=key))
    return config
