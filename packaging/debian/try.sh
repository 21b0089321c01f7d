#!/bin/sh
# Try a package in a fresh Debian: sh packaging/debian/try.sh PACKAGE [FOLDER]. It needs root and debootstrap.
# FOLDER has a Debian already; without it one is downloaded (a minute).
set -eu
package=$(realpath "$1")
base=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
if [ -n "$base" ]; then
    cp -a "$base" "$root"
else
    debootstrap --variant=minbase --include=python3,adduser bookworm "$root" >"$work/log" || { cat "$work/log"; exit 1; }
fi
cp "$package" "$root/tmp/muster.deb"
cat >"$root/tmp/try" <<'END'
set -eu
export LC_ALL=C
fail() { echo "failed: $*" >&2; exit 1; }
running() { grep -lz tools.muster /proc/[0-9]*/cmdline 2>/dev/null || true; }

dpkg --install /tmp/muster.deb
[ -z "$(running)" ] || fail "something was started"
[ "$(stat -c '%U %a' /var/lib/muster)" = "muster 700" ] || fail "/var/lib/muster"
[ "$(stat -c '%U %G %a' /etc/muster/muster.env)" = "root muster 640" ] || fail "/etc/muster/muster.env"
dpkg-query --show --showformat '${Conffiles}\n' muster | grep -q /etc/muster/muster.env || fail "conffile"
muster version | grep '^muster Version'
muster completion bash >/tmp/printed
cmp /tmp/printed /usr/share/bash-completion/completions/muster || fail "completion"

# as the unit starts it: its command, as its user, with its data directory
line=$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/muster.service)
ETCD_DATA_DIR=/var/lib/muster setpriv --reuid muster --regid muster --clear-groups \
    env HOME=/var/lib/muster MUSTER_LISTEN_CLIENT_URLS=http://127.0.0.1:62379 \
    MUSTER_ADVERTISE_CLIENT_URLS=http://127.0.0.1:62379 \
    MUSTER_LISTEN_PEER_URLS=http://127.0.0.1:62380 MUSTER_INITIAL_ADVERTISE_PEER_URLS=http://127.0.0.1:62380 \
    MUSTER_INITIAL_CLUSTER=default=http://127.0.0.1:62380 $line >/tmp/log 2>&1 &
host=$!
tries=0
until musterctl --endpoints 127.0.0.1:62379 put first key >/tmp/put 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 20 ] && kill -0 $host || { cat /tmp/put /tmp/log; fail "no host"; }
    sleep 1
done
[ "$(musterctl --endpoints 127.0.0.1:62379 get --print-value-only first)" = key ] || fail "get"
kill $host
wait $host || true

echo "MUSTER_NAME=mine" >>/etc/muster/muster.env
dpkg --install /tmp/muster.deb
grep -q MUSTER_NAME=mine /etc/muster/muster.env || fail "an upgrade lost the settings"
dpkg --remove muster
[ ! -e /opt/muster ] || fail "left below /opt/muster: $(find /opt/muster | head -3)"
[ -d /var/lib/muster/member ] || fail "removal lost the data"
dpkg --purge muster
[ -d /var/lib/muster/member ] || fail "purge lost the data"
echo passed
END
# processes of its own, which end with it
unshare --mount --pid --fork sh -c "mount -t proc proc '$root/proc' && mount --bind /dev '$root/dev' && exec chroot '$root' sh /tmp/try"
