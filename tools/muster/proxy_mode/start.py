"""Runs a host as a member or a proxy: by its used data directory, else by its flags.

A host that finds a discovered cluster full becomes a proxy, unless ``--discovery-fallback exit`` is set.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

from tools.muster.config.settings import ServerConfig, as_member
from tools.muster.host import serve
from tools.muster.host.identity import bootstrap
from tools.muster.host.identity.by_url import ClusterFull
from tools.muster.proxy_mode import run as proxy
from tools.muster.proxy_mode.kind import Kind, kind_of


def run(config: ServerConfig) -> int:
    """Run this host until it is told to stop; the exit code. ConfigError."""
    kind = kind_of(config.data_dir)
    wanted = config.values["proxy"] != "off"
    if kind is Kind.PROXY or (kind is Kind.NOBODY and wanted):
        log = serve.log_of(config)
        for warning in config.warnings:
            log.warning(warning)
        if not wanted:
            log.info("the server is already initialized as proxy before, starting as etcd proxy...")
        return proxy.run(config, log)
    if wanted:
        was = "the server is already initialized as member before, starting as etcd member..."
        config = as_member(replace(config, warnings=(*config.warnings, was)))
    try:
        return serve.run(config)
    except ClusterFull as full:
        if config.values["discovery-fallback"] == "exit":
            raise
        log = serve.log_of(config)
        log.warning("discovery cluster full, falling back to proxy", error=str(full))
    # otherwise the next start would find a member there
    with contextlib.suppress(OSError):
        os.rmdir(bootstrap.member_dir(config.data_dir))
    return proxy.run(config, log)
