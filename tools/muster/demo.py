"""``make demo``: three hosts on this machine, and five things to try with them."""

from __future__ import annotations

import shlex
import sys

from tools.muster.cli import guarded
from tools.muster.local import commands as local_cli
from tools.muster.local.layout import Layout

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
 3. who leads            .venv/bin/musterctl --endpoints $E endpoint status -w table
                         .venv/bin/musterctl --endpoints $E shard list
 4. health, metrics      curl {first.endpoint}/health; echo
                         curl -s {first.endpoint}/metrics | grep -E '^etcd_server_(has|is)_leader'
 5. from Python          .venv/bin/python -c "{snippet}"

Ctrl-C here stops all of it; the data stays in {data_dir}."""


def run(args: list[str]) -> int:
    return local_cli.run(
        args, on_ready=lambda data_dir, layout: print(hints(data_dir, layout), flush=True),
        ports_by="make demo PORT=12379, say",
    )


if __name__ == "__main__":
    sys.exit(guarded(run, sys.argv[1:]))
