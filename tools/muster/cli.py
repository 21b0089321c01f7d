"""The command line ``muster [flags]``, ``muster local | proxy | gateway | console | ...``.

Exit codes: 0 normal, 1 a wrong setting or a failure, 2 an unreadable command line. Every error is one line on
stderr. The usage follows it where a server's flag cannot be read.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

from tools.muster.config.parse import ConfigError, UsageError
from tools.muster.machine import signals, streams

COMMANDS = {
    "local": "run several hosts on this machine, and control them",
    "proxy": "run a proxy, on a machine without a member",
    "gateway": "forward TCP connections to members, as etcd's gateway does",
    "console": "serve the web console of a cluster",
    "peer-keys": "make the key file that encrypts traffic between hosts",
    "completion": "print a script that completes commands and flags in a shell",
    "version": "print the versions",
    "help": "print this",
}


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the ``muster`` script."""
    streams.open_closed()
    for number in signals.IGNORED:
        signal.signal(number, lambda *_: None)  # SIG_IGN would hold for other programs that this one starts
    sys.exit(run(list(sys.argv[1:] if args is None else args)))


def run(args: list[str]) -> int:
    """Run a command; its exit code."""
    return guarded(_dispatch, args)


def guarded(command: Callable[[list[str]], int], args: list[str]) -> int:
    """Run something with its errors told in one line; the exit code."""
    try:
        return command(args)
    except UsageError as e:
        return _unread(e)
    except ConfigError as e:
        print(f"muster: {e}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    except OSError as e:  # of a disk that is full or read-only, say
        print(f"muster: {e.strerror or e}{f': {e.filename}' if e.filename else ''}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _unread(error: UsageError) -> int:
    print(f"muster: {error}. See 'muster --help'.", file=sys.stderr)
    return 2


def _dispatch(args: list[str]) -> int:
    command = args[0] if args and not args[0].startswith("-") else ""
    if command == "local":
        from tools.muster.local.commands import run as run_local

        return run_local(args[1:])
    if command == "proxy":
        from tools.muster.proxy_cli import run as run_proxy

        return run_proxy(args[1:])
    if command == "gateway":
        from tools.muster.gateway.cli import run as run_gateway

        return run_gateway(args[1:])
    if command == "console":
        from tools.muster.console import run as run_console

        return run_console(args[1:])
    if command == "peer-keys":
        return _peer_keys(args[1:])
    if command == "completion":
        from tools.muster.completion import run as run_completion

        return run_completion(args[1:], COMMANDS)
    if command == "version":
        return _version()
    if command == "help":
        return _help()
    return _server(args)


def _server(args: list[str]) -> int:
    from tools.muster.config import settings as config
    from tools.muster.config.flags import SERVER_FLAGS
    from tools.muster.config.parse import resolve

    warnings: list[str] = []
    try:
        values = resolve(SERVER_FLAGS, args, os.environ)
        if values["help"]:
            return _help()
        if values["version"] and not values.rest:
            return _version()
        warnings = values.warnings
        from tools.muster.proxy_mode import kind

        settings = config.build(values, kind.names_members)
        if values["console"]:
            from tools.muster import console

            console.require()
            console.listen_of(values["console-listen"], "", "", "--console-listen")
    except UsageError as e:
        from tools.muster.flag_docs import SERVER_USAGE

        code = _unread(e)
        print(SERVER_USAGE, file=sys.stderr)
        return code
    except ConfigError as e:
        # what was given in vain may be what is wanted, and no log says so
        vain = "; ".join(w for w in warnings if w.startswith("unrecognized ") or " is ignored: " in w)
        beside = f" ({vain})" if vain else ""
        raise ConfigError(f"error verifying flags, {e}{beside}. See 'muster --help'.") from None
    from tools.muster.proxy_mode import start

    return start.run(settings)


PEER_KEYS_USAGE = """Usage:

  muster peer-keys FILE             make the key file that encrypts traffic between hosts
  muster peer-keys --add FILE       add the next key to the file
  muster peer-keys --rotate FILE    use the next key; hosts still accept the previous one
  muster peer-keys --drop FILE      remove the previous keys

Only this user can read the file. An existing file is not overwritten. Copy it to every host of the cluster,
and start each with --peer-key-file=FILE. To change keys while the cluster serves, run the other three in
this order, and copy the file to every host after each. After --rotate also restart the hosts, one by one."""


def _peer_keys(args: list[str]) -> int:
    if any(arg in ("-h", "-help", "--help") for arg in args):
        print(PEER_KEYS_USAGE)
        return 0
    from tools.muster import peer_keys

    steps = [arg.lstrip("-") for arg in args if arg.startswith("-")]
    files = [arg for arg in args if not arg.startswith("-")]
    if len(files) != 1 or len(steps) > 1 or any(step not in peer_keys.STEPS for step in steps):
        raise UsageError("usage: muster peer-keys [--add|--rotate|--drop] FILE")
    path = files[0]
    told = "copy it to every host, readable by muster only, and start each with --peer-key-file"
    try:
        if steps:
            told = peer_keys.change(path, steps[0])
        else:
            peer_keys.generate(path)
    except FileExistsError:
        raise ConfigError(f"{path} exists; it is not overwritten") from None
    except OSError as e:
        raise ConfigError(f"cannot write {path}: {e.strerror}") from None
    print(f"wrote {path}: {told}")
    return 0


def _version() -> int:
    import platform

    from cluster.version import ETCD_VERSION, MUSTER_VERSION

    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    print(f"etcd Version: {ETCD_VERSION}")  # first: programs take etcd's version from this line
    print("Git SHA: GitNotFound")
    print(f"Go Version: none (Python {platform.python_version()})")
    print(f"Go OS/Arch: {sys.platform}/{machine}")
    print(f"muster Version: {MUSTER_VERSION}")
    return 0


def _help() -> int:
    from tools.muster.flag_docs import usage

    print(usage(COMMANDS))
    return 0


if __name__ == "__main__":
    main()
