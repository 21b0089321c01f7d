"""What a host runs as: a member, or a proxy. Its data directory decides, if it has been used; else the flags
do.

A host that finds a discovered cluster full becomes a proxy, unless ``--discovery-fallback exit`` says
otherwise.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

from tools.muster.config.parse import ConfigError
from tools.muster.config.settings import ServerConfig, setting
from tools.muster.host import logs, serve
from tools.muster.host.identity import bootstrap
from tools.muster.host.identity.by_url import ClusterFull
from tools.muster.host.supervisor import Logger
from tools.muster.proxy_mode import run as proxy
from tools.muster.proxy_mode.kind import Kind, kind_of


def run(config: ServerConfig) -> int:
    """Run this host until it is told to stop; the exit code. ConfigError."""
    kind = kind_of(config.data_dir)
    wanted = setting(config, "proxy") != "off"
    if kind is Kind.PROXY or (kind is Kind.NOBODY and wanted):
        log = _log(config)
        for warning in config.warnings:
            log.warning(warning)
        if not wanted:
            log.info("the server is already initialized as proxy before, starting as etcd proxy...")
        return proxy.run(config, log)
    if wanted:
        was = "the server is already initialized as member before, starting as etcd member..."
        config = replace(config, warnings=(*config.warnings, was))
    try:
        return serve.run(config)
    except ClusterFull as full:
        if setting(config, "discovery-fallback") == "exit":
            raise
        log = _log(config)
        log.warning("discovery cluster full, falling back to proxy", error=str(full))
    # what stays of it would have the next start find a member there
    with contextlib.suppress(OSError):
        os.rmdir(bootstrap.member_dir(config.data_dir))
    return proxy.run(config, log)


def _log(config: ServerConfig) -> Logger:
    try:
        return logs.configure(
            setting(config, "log-outputs"), setting(config, "log-level"), setting(config, "log-format"))
    except OSError as e:
        raise ConfigError(f"cannot open --log-outputs {e.filename}: {e.strerror}") from None
