"""The first hosts of a cluster from a domain's SRV records (``--discovery-srv``), by etcd's rules.

``_etcd-server._tcp.DOMAIN`` names them with their peer ports, ``_etcd-server-ssl._tcp.DOMAIN`` those with
TLS. The one with the address of an advertised peer URL is this host. The others are called 0, 1, ...: IDs do
not depend on names.
"""

from __future__ import annotations

from dataclasses import replace

from tools.muster.config.parse import ConfigError
from tools.muster.config.settings import ServerConfig, parse_initial_cluster
from tools.muster.config.urls import Url, parse_url, resolved
from tools.muster.host.supervising.supervisor import Logger
from tools.srv import LookupFailed, records

_SERVICE = "etcd-server"


def with_cluster(config: ServerConfig, log: Logger, *, member: bool = True) -> ServerConfig:
    """The same with the domain's initial cluster, if a domain is given; a ``member`` has to be in it.
    ConfigError."""
    domain = config.values["discovery-srv"]
    if not domain:
        return config
    suffix = f"-{name}" if (name := config.values["discovery-srv-name"]) else ""
    failures: list[str] = []
    nodes: list[str] = []
    try:
        own = {_address(url): url for url in config.advertise_peer}
    except OSError as e:
        reason = f"--initial-advertise-peer-urls: {e.strerror}"
        raise ConfigError(f"error setting up initial cluster: {reason}") from None
    for scheme, service in (("https", f"{_SERVICE}-ssl{suffix}"), ("http", f"{_SERVICE}{suffix}")):
        try:
            nodes += _nodes(scheme, service, domain, config.name, own, log)
        except LookupFailed as e:
            failures.append(f"error querying DNS SRV records for _{service} {e}")
    for failure in failures:
        log.warning("failed to resolve during SRV discovery", error=failure)
    if not nodes:
        raise ConfigError(f"error setting up initial cluster: {'; '.join(failures)}")
    for node in nodes:
        log.info("got bootstrap from DNS for etcd-server", node=node)
    text = ",".join(nodes)
    cluster = parse_initial_cluster(text)
    if member and config.name not in dict(cluster):
        raise ConfigError(
            f'error setting up initial cluster: cannot find local etcd member "{config.name}" in SRV records')
    return replace(config, initial_cluster=cluster, initial_cluster_text=text, initial_cluster_set=True)


def _nodes(
    scheme: str, service: str, domain: str, name: str, own: dict[tuple[str, int], Url], log: Logger
) -> list[str]:
    found: list[str] = []
    failed, unnamed = "", 0
    for host, port, _, _ in records(f"_{service}._tcp.{domain}"):
        url = f"{scheme}://{host.rstrip('.')}:{port}"
        try:
            mine = own.get(_address(parse_url(url)))
        except OSError as e:
            failed = f"lookup {host}: {e.strerror or e}"
            continue
        except ConfigError:  # "." says that there is no such service
            failed = f"lookup {host}: no such host"
            continue
        if mine is not None and mine.scheme != scheme:
            failed = f"bootstrap at {url} from DNS for {service} has scheme mismatch with expected peer "
            failed += mine.text
            log.warning(failed)
            continue
        found.append(f"{name if mine is not None else unnamed}={url}")
        unnamed += mine is None
    if not found and failed:
        raise LookupFailed(failed)
    return found


def _address(url: Url) -> tuple[str, int]:
    """OSError."""
    return resolved(url), url.port
