"""``make demo``: three hosts on this machine, their console, and five things to try with them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from functools import partial
from threading import Thread
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from tools.muster.cli import guarded
from tools.muster.host.supervising.children import die_with, environment, python
from tools.muster.local import commands as local_cli
from tools.muster.local.layout import Layout

CONSOLE_PORT = 8378
_GROWTH_S = 10.0
PYTHON_SNIPPET = """import grpc; from cluster.pb import rpc_pb2 as pb; \
get = grpc.insecure_channel('{host}').unary_unary('/etcdserverpb.KV/Range', \
pb.RangeRequest.SerializeToString, pb.RangeResponse.FromString); \
print(get(pb.RangeRequest(key=b'greeting')))"""


def hints(data_dir: str, layout: Layout) -> str:
    """Commands to paste into another terminal."""
    endpoints = ",".join(h.endpoint.removeprefix("http://") for h in layout.hosts)
    first, last = layout.hosts[0], layout.hosts[-1].endpoint.removeprefix("http://")
    snippet = PYTHON_SNIPPET.format(host=first.endpoint.removeprefix("http://"))
    local = f"--data-dir {shlex.quote(data_dir)}"
    return f"""
Five things to try in another terminal, in this folder. First: E={endpoints}

 1. etcd's own client    .venv/bin/etcdctl --endpoints $E put greeting hello
                         .venv/bin/etcdctl --endpoints {last} get greeting
 2. a watch, a crash     .venv/bin/musterctl --endpoints $E watch --prefix /service/ &
                         .venv/bin/musterctl --endpoints $E put /service/web up
                         .venv/bin/muster local kill 0 {local}
                         .venv/bin/musterctl --endpoints $E put /service/web "still up"
                         .venv/bin/muster local start 0 {local} --wait 30s; kill %1
 3. the leader           .venv/bin/musterctl --endpoints $E endpoint status -w table
                         .venv/bin/musterctl --endpoints $E shard list
 4. health, metrics      curl {first.endpoint}/health; echo
                         curl -s {first.endpoint}/metrics | grep -E '^etcd_server_(has|is)_leader'
 5. from Python          .venv/bin/python -c "{snippet}"

Ctrl-C here stops all of it; the data stays in {data_dir}."""


def run(args: list[str]) -> int:
    with contextlib.ExitStack() as stack:

        def ready(data_dir: str, layout: Layout) -> None:
            Thread(target=_enable_growth, args=(layout.hosts[0].endpoint,), daemon=True).start()
            _start_console(stack, layout)
            print(hints(data_dir, layout), flush=True)

        return local_cli.run(args, on_ready=ready, ports_by="make demo PORT=12379, say")


def _enable_growth(endpoint: str) -> None:
    """In a new cluster, so that shards can be added at once: all its hosts are of this version, and say so
    within seconds."""
    until = time.monotonic() + _GROWTH_S
    new = False  # by the first answer: clients may write before all hosts have said their version
    while time.monotonic() < until:
        with contextlib.suppress(OSError, ValueError, KeyError):
            found = _asked(f"{endpoint}/v3/kv/range", b'{"key":"AA==","count_only":true}')
            new = new or found["header"]["revision"] == "1"
            if new:
                _asked(f"{endpoint}/v3/shards/enable-growth", b"{}")
            return
        time.sleep(0.1)


def _asked(url: str, body: bytes) -> Any:
    """OSError, ValueError: there is no answer."""
    direct = build_opener(ProxyHandler({}))
    with direct.open(Request(url, body, {"Content-Type": "application/json"}), timeout=2) as answer:
        return json.load(answer)


def _start_console(stack: contextlib.ExitStack, layout: Layout) -> None:
    """A console of these hosts, until the demo ends; its address is printed first."""
    if importlib.util.find_spec("nicegui") is None:
        print("No web console: it needs pip install '.[console]'")
        return
    with socket.create_server(("127.0.0.1", CONSOLE_PORT if _is_free(CONSOLE_PORT) else 0)) as listener:
        port = listener.getsockname()[1]
    endpoints = ",".join(host.endpoint for host in layout.hosts)
    line = python("tools.muster.cli", "console", f"--endpoints={endpoints}",
                  f"--listen=http://127.0.0.1:{port}")
    console = stack.enter_context(subprocess.Popen(
        line, env=environment(), stdout=subprocess.PIPE, preexec_fn=partial(die_with, os.getpid()),
        start_new_session=True))
    stack.callback(console.terminate)
    if console.stdout is not None and console.stdout.readline():  # else it has said why on stderr
        print(f"\nWeb console    http://127.0.0.1:{port}")


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def main() -> None:
    """Be ``python -m tools.muster.demo``."""
    sys.exit(guarded(run, sys.argv[1:]))


if __name__ == "__main__":
    main()
