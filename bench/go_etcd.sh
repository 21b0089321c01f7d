#!/bin/sh
# A newer etcd than the packaged one, built from its Go module; prints the path of the binary.
#
#   muster-bench compare --with etcd=$(bench/go_etcd.sh v3.6.5) --preset issue4
#
# Builds once (a few minutes; needs Go and the Go module proxy). `go install` refuses the module because its go.mod
# has replace directives; from a module of our own that requires it, it builds.
set -eu

version="${1:-v3.6.5}"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/muster-bench/etcd-$version"

if [ ! -x "$cache/etcd" ]; then
    command -v go >/dev/null || { echo "go_etcd.sh: Go is not installed" >&2; exit 1; }
    mkdir -p "$cache"
    cd "$cache"
    cat >go.mod <<EOF
module etcdbuild

go 1.24
EOF
    cat >tools.go <<EOF
//go:build tools

package tools

import _ "go.etcd.io/etcd/server/v3"
EOF
    go get "go.etcd.io/etcd/server/v3@$version" >&2
    go build -o etcd.new go.etcd.io/etcd/server/v3 >&2
    mv etcd.new etcd
fi
echo "$cache/etcd"
