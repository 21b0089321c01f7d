#!/bin/sh
# etcd's own benchmark tool, built from its Go module, so that its figures can stand beside muster-bench's.
#
#   bench/go_benchmark.sh put --endpoints 127.0.0.1:2379 --conns 100 --clients 1000 --total 100000 \
#       --key-size 8 --val-size 256 --key-space-size 10000
#
# Builds once (a minute, needs Go >= 1.23 and the Go module proxy), then runs the tool with the arguments given.
# `go install go.etcd.io/etcd/v3/tools/benchmark@v3.5.21` is refused by Go, because etcd's go.mod has replace
# directives; from a module of our own that requires it, it builds.
set -eu

version="${ETCD_BENCHMARK_VERSION:-v3.5.21}"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/muster-bench/etcd-benchmark-$version"

if [ ! -x "$cache/benchmark" ]; then
    command -v go >/dev/null || { echo "go_benchmark.sh: Go is not installed" >&2; exit 1; }
    mkdir -p "$cache"
    cd "$cache"
    cat >go.mod <<EOF
module etcdbenchmark

go 1.23
EOF
    cat >tools.go <<EOF
//go:build tools

package tools

import _ "go.etcd.io/etcd/v3/tools/benchmark"
EOF
    go get "go.etcd.io/etcd/v3/tools/benchmark@$version" >&2
    go build -o benchmark.new go.etcd.io/etcd/v3/tools/benchmark >&2
    mv benchmark.new benchmark
    cd - >/dev/null
fi
# It never gives up on a server that is away, so it gets an end from outside.
exec timeout "${ETCD_BENCHMARK_LIMIT_S:-900}" "$cache/benchmark" "$@"
