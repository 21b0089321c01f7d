"""The first hosts of a cluster from a discovery directory, by etcd's rules: of the v2 API (``--discovery``),
or of v3 keys (``--discovery-token``, ``--discovery-endpoints``).

The URL, or the token, serves as the cluster's token in the IDs. A directory serves one start of one cluster.
"""

from __future__ import annotations

from dataclasses import replace

from cluster.members import identity as ids
from tools.muster.config.parse import ConfigError
from tools.muster.config.settings import ServerConfig, parse_initial_cluster
from tools.muster.discovery import directory
from tools.muster.discovery.directory import Asked, Cluster, Directory, DirectoryFailed
from tools.muster.discovery.service import Service, shown
from tools.muster.host.supervising.supervisor import Logger


class ClusterFull(ConfigError):
    """The cluster is complete without this host."""


def with_cluster(config: ServerConfig, log: Logger) -> ServerConfig:
    """The same with the directory's initial cluster, if a directory is given; this host is in it.
    ConfigError."""
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
    """The same for a proxy, which is no host of the cluster. ConfigError."""
    if not discovers(config):
        return config
    try:
        return _with(config, _directory(config, "", log).find())
    except DirectoryFailed as e:
        raise ConfigError(str(e)) from None


def discovers(config: ServerConfig) -> str:
    """The URL or token by which the hosts find each other, "" for neither."""
    return str(config.values["discovery"] or config.values["discovery-token"])


def _directory(config: ServerConfig, own: str, log: Logger) -> Directory:
    if not config.values["discovery"]:
        return Directory(_registry(config), own, log, again=True)
    return Directory(Service(config.values["discovery"], config.values["discovery-proxy"]), own, log)


def _registry(config: ServerConfig) -> Asked:
    # it loads the client library, which a supervisor needs for nothing else
    from tools.client.channels import MIN_KEEPALIVE_MS
    from tools.client.channels import Config as Access
    from tools.muster.discovery.registry import Registry

    values = config.values
    access = Access(
        endpoints=tuple(values["discovery-endpoints"]),
        insecure_transport=values["discovery-insecure-transport"],
        cert=values["discovery-cert"],
        key=values["discovery-key"],
        cacert=values["discovery-cacert"],
        user=values["discovery-user"],
        password=values["discovery-password"],
        keepalive_ms=max(MIN_KEEPALIVE_MS, values["discovery-keepalive-time"]),
        keepalive_timeout_ms=values["discovery-keepalive-timeout"],
        dial_timeout_ms=values["discovery-dial-timeout"],
        skip_verify=values["discovery-insecure-skip-tls-verify"])
    return Registry(access, values["discovery-token"], values["discovery-request-timeout"])


def _with(config: ServerConfig, cluster: Cluster) -> ServerConfig:
    text = ",".join(f"{name}={url}" for name, url in cluster)
    if len({url for _, url in cluster}) != len(cluster):
        raise ConfigError(f"discovery cluster {text} has duplicate url")
    return replace(
        config, initial_cluster=parse_initial_cluster(text), initial_cluster_text=text,
        initial_cluster_set=True, initial_cluster_token=discovers(config),
    )  # fmt: skip


def _told(config: ServerConfig, reason: str, log: Logger) -> ConfigError:
    """The error, after log lines with advice."""
    url = shown(url) if (url := config.values["discovery"]) else discovers(config)
    text = f"failed to join discovery cluster ({reason})"
    # etcd refuses proxies with a token
    full = reason == directory.FULL and config.values["discovery"] != ""
    if full and config.values["discovery-fallback"] != "exit":
        return ClusterFull(text)
    if reason == directory.DUPLICATE_ID:
        log.warning(f'member "{config.name}" has previously registered with discovery service token ({url}).')
        log.warning(
            "But muster could not find valid cluster configuration in the given data dir "
            f"({config.data_dir}).")
        log.warning("Please check the given data dir path if the previous bootstrap succeeded")
        log.warning("or use a new discovery token if the previous bootstrap failed.")
    elif reason == directory.DUPLICATE_NAME:
        log.warning(f"member with duplicated name has registered with discovery service token({url}).")
        log.warning("please check (cURL) the discovery token for more information.")
        log.warning(
            "please do not reuse the discovery token and generate a new one to bootstrap the cluster.")
    else:
        log.warning(f"discovery token {url} was used, but failed to bootstrap the cluster.")
        log.warning("please generate a new discovery token and try to bootstrap again.")
    return ClusterFull(text) if full else ConfigError(text)


