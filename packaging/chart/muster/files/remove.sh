#!/bin/sh
# Before fewer hosts run: remove the members that will be gone, so that a majority of the members is left.
set -eu
if ! listed=$(musterctl --endpoints "$ENDPOINTS" --command-timeout 30s $CLIENT_FLAGS member list); then
    # a rollback may mend a cluster that does not serve: no member goes where no pod beyond the number is named
    getent hosts "$BASE-0.$DOMAIN" || exit 1
    getent hosts "$BASE-$REPLICAS.$DOMAIN" || [ $? -ne 2 ] || exit 0
    exit 1
fi
echo "$listed" | while IFS=, read -r id _ _ url _; do
    name=${url#*://}
    name=${name%%.*}
    if [ "${name##*-}" -ge "$REPLICAS" ]; then
        tries=0  # a cluster removes no member while another one has just started
        until musterctl --endpoints "$ENDPOINTS" --command-timeout 30s $CLIENT_FLAGS member remove "$id"; do
            tries=$((tries + 1))
            [ "$tries" -lt 30 ] || exit 1
            sleep 2
        done
    fi
done
