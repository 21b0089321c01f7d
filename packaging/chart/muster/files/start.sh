#!/bin/sh
# Start a host of the StatefulSet: of a new cluster, or as a member that it adds to the running one.
set -eu
url="$SCHEME://$POD_NAME.$DOMAIN:2380"
others= cluster= i=0
while [ "$i" -lt "$REPLICAS" ]; do
    cluster="$cluster${cluster:+,}$BASE-$i=$SCHEME://$BASE-$i.$DOMAIN:2380"
    [ "$BASE-$i" = "$POD_NAME" ] || others="$others${others:+,}$SCHEME://$BASE-$i.$DOMAIN:2379"
    i=$((i + 1))
done
state=new
joins="$MUSTER_DATA_DIR.joins"  # there once this pod has met a cluster: it begins none of its own then

# the members, if there is a cluster: lines of ID, STATE, NAME, PEER URL, CLIENT URL, LEARNER
members() {
    [ -n "$others" ] && musterctl --endpoints "$others" --command-timeout 10s $CLIENT_FLAGS member list
}

if [ -e "$MUSTER_DATA_DIR/member/identity.json" ]; then
    :
elif listed=$(members 2>/tmp/said); then
    touch "$joins"
    if echo "$listed" | grep -q ", started, [^,]*, $url, "; then
        echo "the cluster knows $POD_NAME, but its data is gone: remove that member, then delete this pod" >&2
        exit 1
    fi
    if ! echo "$listed" | grep -q ", $url, "; then
        tries=0  # a cluster takes no member while another one has just started
        until musterctl --endpoints "$others" --command-timeout 30s $CLIENT_FLAGS \
            member add "$POD_NAME" --peer-urls "$url"; do
            tries=$((tries + 1))
            [ "$tries" -lt 30 ] || exit 1
            sleep 2
        done
        listed=$(members)
    fi
    # a member's name is the first word of its address
    cluster=$(echo "$listed" | sed -E 's|^[^,]*, [^,]*, [^,]*, (https?://([^.:]+)[^,]*), .*$|\2=\1|' | paste -sd, -)
    state=existing
else
    cat /tmp/said >&2
    # hosts of a new cluster look for a leader before they know the members
    if grep "etcdserver:" /tmp/said | grep -qv "no leader\|request timed out"; then
        touch "$joins"
        echo "there is a cluster that refuses $POD_NAME: if it has users, set auth.secret" >&2
        exit 1
    fi
    if [ -e "$joins" ]; then
        echo "nobody answers of the cluster that $POD_NAME is to join; for a new cluster remove $joins" >&2
        exit 1
    fi
    if [ "${BEGINS:-}" != true ]; then
        echo "nobody answers of the cluster that $POD_NAME is to join; a new release begins a new one" >&2
        exit 1
    fi
fi

if [ -n "${KEYS:-}" ]; then
    # a secret's file belongs to root and a group, and muster wants one that no other can read
    install -m 600 "$KEYS" /tmp/cluster.keys
    # muster reads a changed file at once; this loop ends with muster, which is process $$ then
    while sleep 5 && kill -0 $$ 2>/dev/null; do
        cmp -s "$KEYS" /tmp/cluster.keys || {
            install -m 600 "$KEYS" /tmp/next.keys && mv /tmp/next.keys /tmp/cluster.keys
        } || :
    done &
    set -- --peer-key-file=/tmp/cluster.keys "$@"
fi
exec muster --name="$POD_NAME" \
    --listen-client-urls="$SCHEME://$LISTEN:2379" --advertise-client-urls="$SCHEME://$POD_NAME.$DOMAIN:2379" \
    --listen-peer-urls="$SCHEME://$LISTEN:2380" --initial-advertise-peer-urls="$url" \
    --listen-metrics-urls="http://$LISTEN:2381" \
    --initial-cluster="$cluster" --initial-cluster-state="$state" --initial-cluster-token="$BASE" "$@"
