"""The first hosts of a cluster out of a discovery directory (``--discovery``), by etcd's rules.

The URL stands for the cluster's token: it goes into the IDs. A directory serves one start of one cluster.
"""

from __future__ import annotations

from dataclasses import replace

from cluster.members import identity as ids
from tools.muster.config.parse import ConfigError
from tools.muster.config.settings import ServerConfig, parse_initial_cluster, setting
from tools.muster.discovery import directory
from tools.muster.discovery.directory import Cluster, Directory, DirectoryFailed
from tools.muster.discovery.service import Service, shown
from tools.muster.host.supervisor import Logger


class ClusterFull(ConfigError):
    """The cluster has its hosts without this one."""


def with_cluster(config: ServerConfig, log: Logger) -> ServerConfig:
    """The same with the initial cluster that the directory comes to hold, if one is given; this host is in
    it. ConfigError."""
    url = setting(config, "discovery")
    if not url:
        return config
    if config.initial_cluster_state == "existing":
        raise ConfigError("discovery URL should not be set when joining existing initial cluster")
    urls = [u.text for u in config.advertise_peer]
    own = f"{ids.member_id(urls, url):x}"
    entry = ",".join(f"{config.name}={text}" for text in sorted(urls))
    try:
        cluster = _directory(config, own, log).join(entry)
    except DirectoryFailed as e:
        raise _told(config, str(e), log) from None
    return _with(config, cluster)


def for_a_proxy(config: ServerConfig, log: Logger) -> ServerConfig:
    """The same for a proxy, which is none of the hosts it finds. ConfigError."""
    if not setting(config, "discovery"):
        return config
    try:
        return _with(config, _directory(config, "", log).find())
    except DirectoryFailed as e:
        raise ConfigError(str(e)) from None


def _directory(config: ServerConfig, own: str, log: Logger) -> Directory:
    return Directory(Service(setting(config, "discovery"), setting(config, "discovery-proxy")), own, log)


def _with(config: ServerConfig, cluster: Cluster) -> ServerConfig:
    text = ",".join(f"{name}={url}" for name, url in cluster)
    if len({url for _, url in cluster}) != len(cluster):
        raise ConfigError(f"discovery cluster {text} has duplicate url")
    return replace(
        config, initial_cluster=parse_initial_cluster(text), initial_cluster_text=text,
        initial_cluster_set=True, initial_cluster_token=setting(config, "discovery"),
    )  # fmt: skip


def _told(config: ServerConfig, reason: str, log: Logger) -> ConfigError:
    """The log says what to do about it."""
    url = shown(setting(config, "discovery"))
    text = f"failed to join discovery cluster ({reason})"
    if reason == directory.FULL:
        return ClusterFull(text)
    if reason == directory.DUPLICATE_ID:
        log.warning(f'member "{config.name}" has previously registered with discovery service token ({url}).')
        log.warning(
            "But muster could not find valid cluster configuration in the given data dir "
            f"({config.data_dir})."
        )
        log.warning("Please check the given data dir path if the previous bootstrap succeeded")
        log.warning("or use a new discovery token if the previous bootstrap failed.")
    elif reason == directory.DUPLICATE_NAME:
        log.warning(f"member with duplicated name has registered with discovery service token({url}).")
        log.warning("please check (cURL) the discovery token for more information.")
        log.warning(
            "please do not reuse the discovery token and generate a new one to bootstrap the cluster."
        )
    else:
        log.warning(f"discovery token {url} was used, but failed to bootstrap the cluster.")
        log.warning("please generate a new discovery token and try to bootstrap again.")
    return ConfigError(text)


