#!/bin/sh
# Builds a program out of a Go module whose go.mod has replace directives, which `go install` refuses: from a module of
# our own that requires it, it builds. Once; prints the path of the binary.
#
#   go_build.sh NAME VERSION PACKAGE GO_VERSION      the version is the package's module's
#
# A minute or a few; needs Go and the Go module proxy. A checkout keeps what is built in .interop.
set -eu

name="$1" version="$2" package="$3" go_version="$4"
root=$(cd "$(dirname "$0")/../.." && pwd)
if [ -e "$root/Makefile" ]; then
    cache="$root/.interop/bench/$name-$version"
else
    cache="${XDG_CACHE_HOME:-$HOME/.cache}/muster-bench/$name-$version"
fi

if [ ! -x "$cache/$name" ]; then
    command -v go >/dev/null || { echo "$name: Go is not installed" >&2; exit 1; }
    mkdir -p "$cache"
    cd "$cache"
    exec 9>lock # one builds, others wait for what it makes
    flock 9
fi
if [ ! -x "$cache/$name" ]; then
    cat >go.mod <<EOF
module muster-bench/build

go $go_version
EOF
    cat >tools.go <<EOF
//go:build tools

package tools

import _ "$package"
EOF
    go get "$package@$version" >&2
    go build -o "$name.new" "$package" >&2
    mv "$name.new" "$name"
fi
echo "$cache/$name"
