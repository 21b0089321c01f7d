#!/bin/sh
# A newer etcd than the packaged one, built from its Go module (go_build.sh); prints the path of the binary.
#
#   muster-bench compare --with etcd=$(bench/compare/go_etcd.sh v3.6.5) --preset matrix
set -eu

exec sh "$(dirname "$0")/go_build.sh" etcd "${1:-v3.6.5}" go.etcd.io/etcd/server/v3 1.24
