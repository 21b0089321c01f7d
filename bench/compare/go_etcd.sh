#!/bin/sh
# A newer etcd than the packaged one, built from its Go module (go_build.sh); prints the path of the binary.
#
#   muster-bench compare --etcd etcd --etcd "$(bench/compare/go_etcd.sh v3.7.1)" --preset page
set -eu

exec sh "$(dirname "$0")/go_build.sh" etcd "${1:-v3.7.1}" go.etcd.io/etcd/server/v3 "${2:-1.26}"
