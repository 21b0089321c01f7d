"""``--auto-tls``: a certificate that signs itself, in the data directory, as etcd makes one.

It keeps listeners-in out. It tells no client who the host is, so clients have to be told not to look
(``--insecure-skip-tls-verify``), or be given the certificate. A certificate that is there stays, whenever it
ends.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tools.muster.config.parse import ConfigError
from tools.muster.config.settings import ServerConfig, setting


def with_certificate(config: ServerConfig) -> ServerConfig:
    """The same, with the files of --auto-tls where that was asked for. ConfigError."""
    if config.tls is None or config.tls.cert_file:
        return config
    from tools.muster.host.identity.self_signed import self_signed  # 8 MB that other hosts do not need

    hosts = [u.host for u in (*config.listen_client, *config.listen_metrics) if u.scheme in ("https", "unixs")]
    try:
        cert, key = self_signed(
            Path(config.data_dir, "fixtures", "client"), hosts, setting(config, "self-signed-cert-validity")
        )
    except OSError as error:
        raise ConfigError(
            f"cannot write the certificate of --auto-tls {error.filename}: {error.strerror}"
        ) from None
    return replace(config, tls=replace(config.tls, cert_file=cert, key_file=key))
