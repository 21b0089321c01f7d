"""The flags of every command, and their environment variables."""

from __future__ import annotations

import json
import os
import sys
import time

from tools.musterctl.command import Flag, FlagError, Flags

_NOT_FLAGS = ("API", "WATCH_KEY", "WATCH_RANGE_END")

GLOBAL_FLAGS = (
    Flag("endpoints", "list", "127.0.0.1:2379", "gRPC endpoints"),
    Flag("debug", "bool", "false", "enable client-side debug logging"),
    Flag(
        "write-out", "string", "simple", "set the output format (fields, json, protobuf, simple, table)", "w"
    ),
    Flag("hex", "bool", "false", "print byte strings as hex encoded strings"),
    Flag("dial-timeout", "duration", "2s", "dial timeout for client connections"),
    Flag("command-timeout", "duration", "5s", "timeout for short running command (excluding dial timeout)"),
    Flag("keepalive-time", "duration", "2s", "keepalive time for client connections"),
    Flag("keepalive-timeout", "duration", "6s", "keepalive timeout for client connections"),
    Flag("insecure-transport", "bool", "true", "disable transport security for client connections"),
    Flag("insecure-discovery", "bool", "true", "accept insecure SRV records describing cluster endpoints"),
    Flag(
        "insecure-skip-tls-verify", "bool", "false",
        "skip server certificate verification (CAUTION: this option should be enabled only for testing "
        "purposes)"),
    Flag("cert", "string", "", "identify secure client using this TLS certificate file"),
    Flag("key", "string", "", "identify secure client using this TLS key file"),
    Flag("cacert", "string", "", "verify certificates of TLS-enabled secure servers using this CA bundle"),
    Flag("user", "string", "", "username[:password] for authentication (prompt if password is not supplied)"),
    Flag(
        "password",
        "string",
        "",
        "password for authentication (if this option is used, --user option shouldn't include password)"),
    Flag(
        "discovery-srv", "string", "", "domain name to query for SRV records describing cluster endpoints",
        "d"),
    Flag("discovery-srv-name", "string", "", "service name to query when using DNS discovery"),
    Flag("max-request-bytes", "int", "0", "client-side request size limit in bytes (0: 2 MiB)", newer=True),
    Flag(
        "auth-jwt-token",
        "string",
        "",
        "JWT token used for authentication (if this option is used, --user and --password should not be set)",
        newer=True),
    Flag("max-recv-bytes", "int", "0", "client-side response size limit in bytes (0: none)", newer=True))


def take_environment(flags: Flags) -> None:
    """Set the global flags that the command line left out from MUSTERCTL_* or ETCDCTL_* variables. As with
    etcdctl, what cannot be read ends no command: a switch is off then, other flags have their defaults."""
    names = {}
    for flag in GLOBAL_FLAGS:
        key = flag.name.upper().replace("-", "_")
        names[key] = flag
        if flag.name in flags.given:
            continue  # the command line wins
        for prefix in ("MUSTERCTL_", "ETCDCTL_"):
            value = os.environ.get(prefix + key, "")
            if value:
                try:
                    flags.set(flag, value)
                except FlagError as error:
                    _warn("unreadable environment variable", f"{prefix}{key}={value}", str(error))
                    if flag.kind == "bool":
                        flags.set(flag, "false")
                break
    for variable, value in os.environ.items():
        prefix, _, key = variable.partition("_")
        if prefix in ("ETCDCTL", "MUSTERCTL") and key not in names and key not in _NOT_FLAGS:
            _warn("unrecognized environment variable", f"{variable}={value}")


def _warn(message: str, variable: str, error: str = "") -> None:
    warning = {"level": "warn", "ts": time.time(), "msg": message, "environment-variable": variable}
    if error:
        warning["error"] = error
    print(json.dumps(warning, separators=(",", ":")), file=sys.stderr)
