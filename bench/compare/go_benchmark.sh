#!/bin/sh
# etcd's own benchmark tool, built from its Go module (go_build.sh), so that its figures can stand beside muster-bench's.
#
#   bench/compare/go_benchmark.sh put --endpoints 127.0.0.1:2379 --conns 100 --clients 1000 --total 100000 \
#       --key-size 8 --val-size 256 --key-space-size 10000
#
# Builds once, then runs the tool with the arguments given.
set -eu

tool=$(sh "$(dirname "$0")/go_build.sh" etcd-benchmark "${ETCD_BENCHMARK_VERSION:-v3.7.1}" go.etcd.io/etcd/v3/tools/benchmark 1.26)
# It never gives up on a server that is away, so it gets an end from outside.
exec timeout "${ETCD_BENCHMARK_LIMIT_S:-900}" "$tool" "$@"
