"""``make demo``: three hosts on this machine, and five things to try with them."""

from __future__ import annotations

import sys

from tools.muster import local_cli
from tools.muster.cli import guarded
from tools.muster.layout import Layout

PYTHON_SNIPPET = """import grpc; from cluster.pb import rpc_pb2 as pb; \
get = grpc.insecure_channel('{host}').unary_unary('/etcdserverpb.KV/Range', \
pb.RangeRequest.SerializeToString, pb.RangeResponse.FromString); print(get(pb.RangeRequest(key=b'greeting')))"""


def hints(data_dir: str, layout: Layout) -> str:
    """What to try, ready to paste into another terminal."""
    endpoints = ",".join(h.endpoint.removeprefix("http://") for h in layout.hosts)
    first, last_host = layout.hosts[0], endpoints.split(",")[-1]
    snippet = PYTHON_SNIPPET.format(host=first.endpoint.removeprefix("http://"))
    return f"""
Five things to try from another terminal, in this folder:

 1. etcd's own client:   .venv/bin/etcdctl --endpoints {endpoints} put greeting hello
                         .venv/bin/etcdctl --endpoints {last_host} get greeting
 2. watch, and kill:     .venv/bin/musterctl --endpoints {last_host} watch --prefix /service/
                         .venv/bin/muster local kill 0 --data-dir {data_dir}; .venv/bin/muster local start 0 --data-dir {data_dir}
 3. who leads:           .venv/bin/musterctl --endpoints {endpoints} endpoint status -w table
 4. health and metrics:  curl {first.endpoint}/health; curl {first.endpoint}/metrics
 5. from Python:         .venv/bin/python -c "{snippet}"

Ctrl-C stops all of it; the data stays in {data_dir}/."""


def run(args: list[str]) -> int:
    """Run the local cluster with the hints; the exit code."""
    return local_cli.run(args, on_ready=lambda data_dir, layout: print(hints(data_dir, layout), flush=True))


if __name__ == "__main__":
    sys.exit(guarded(run, sys.argv[1:]))
