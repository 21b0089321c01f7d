"""The first hosts of a cluster out of a discovery directory, by etcd's rules: of the API of version 2
(``--discovery``), or of keys of version 3 (``--discovery-token``, ``--discovery-endpoints``).

The URL, or the token, stands for the cluster's token: it goes into the IDs. A directory serves one start of
one cluster.
"""

from __future__ import annotations

from dataclasses import replace

from cluster.members import identity as ids
from tools.muster.config.parse import ConfigError
from tools.muster.config.settings import ServerConfig, parse_initial_cluster, setting
from tools.muster.discovery import directory
from tools.muster.discovery.directory import Asked, Cluster, Directory, DirectoryFailed
from tools.muster.discovery.service import Service, shown
from tools.muster.host.supervisor import Logger


class ClusterFull(ConfigError):
    """The cluster has its hosts without this one."""


def with_cluster(config: ServerConfig, log: Logger) -> ServerConfig:
    """The same with the initial cluster that the directory comes to hold, if one is given; this host is in
    it. ConfigError."""
    token = discovers(config)
    if not token:
        return config
    if config.initial_cluster_state == "existing":
        raise ConfigError("discovery URL should not be set when joining existing initial cluster")
    urls = [u.text for u in config.advertise_peer]
    own = f"{ids.member_id(urls, token):x}"
    entry = ",".join(f"{config.name}={text}" for text in sorted(urls))
    try:
        cluster = _directory(config, own, log).join(entry)
    except DirectoryFailed as e:
        raise _told(config, str(e), log) from None
    return _with(config, cluster)


def for_a_proxy(config: ServerConfig, log: Logger) -> ServerConfig:
    """The same for a proxy, which is none of the hosts it finds. ConfigError."""
    if not discovers(config):
        return config
    try:
        return _with(config, _directory(config, "", log).find())
    except DirectoryFailed as e:
        raise ConfigError(str(e)) from None


def discovers(config: ServerConfig) -> str:
    """What the hosts find each other by: a URL, or a token; "": by neither."""
    return str(setting(config, "discovery") or setting(config, "discovery-token"))


def _directory(config: ServerConfig, own: str, log: Logger) -> Directory:
    if not setting(config, "discovery"):
        return Directory(_registry(config), own, log, again=True)
    return Directory(Service(setting(config, "discovery"), setting(config, "discovery-proxy")), own, log)


def _registry(config: ServerConfig) -> Asked:
    # it loads gRPC's library, which a supervisor has no other use for
    from tools.muster.discovery.registry import Access, Registry

    return Registry(Access(
        endpoints=tuple(setting(config, "discovery-endpoints")),
        token=setting(config, "discovery-token"),
        dial_timeout_ms=setting(config, "discovery-dial-timeout"),
        request_timeout_ms=setting(config, "discovery-request-timeout"),
        keepalive_ms=setting(config, "discovery-keepalive-time"),
        keepalive_timeout_ms=setting(config, "discovery-keepalive-timeout"),
        insecure_transport=setting(config, "discovery-insecure-transport"),
        skip_verify=setting(config, "discovery-insecure-skip-tls-verify"),
        cert=setting(config, "discovery-cert"),
        key=setting(config, "discovery-key"),
        cacert=setting(config, "discovery-cacert"),
        user=setting(config, "discovery-user"),
        password=setting(config, "discovery-password"),
    ))  # fmt: skip


def _with(config: ServerConfig, cluster: Cluster) -> ServerConfig:
    text = ",".join(f"{name}={url}" for name, url in cluster)
    if len({url for _, url in cluster}) != len(cluster):
        raise ConfigError(f"discovery cluster {text} has duplicate url")
    return replace(
        config, initial_cluster=parse_initial_cluster(text), initial_cluster_text=text,
        initial_cluster_set=True, initial_cluster_token=discovers(config),
    )  # fmt: skip


def _told(config: ServerConfig, reason: str, log: Logger) -> ConfigError:
    """The log says what to do about it."""
    url = shown(url) if (url := setting(config, "discovery")) else discovers(config)
    text = f"failed to join discovery cluster ({reason})"
    if reason == directory.FULL:
        # an etcd that knows tokens knows no proxies
        return ClusterFull(text) if setting(config, "discovery") else ConfigError(text)
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


