"""The files of keys and certificates that a host's flags name."""

from __future__ import annotations

from tools.muster import peer_keys
from tools.muster.config.settings import ServerConfig
from tools.muster.config.tls import check_files
from tools.muster.host.identity import auto_tls


def with_keys(config: ServerConfig) -> ServerConfig:
    """The same, with self-signed certificates where asked for; each file can be used. ConfigError."""
    if config.peer_key_file:
        peer_keys.check(config.peer_key_file)
    config = auto_tls.with_certificate(config)
    if config.tls is not None:
        check_files(config.tls)
    if config.peer_tls is not None:
        check_files(config.peer_tls)
    return config
