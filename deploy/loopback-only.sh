#!/usr/bin/env bash
# Runs a command in a network namespace of its own that holds nothing but loopback:
# Orthanc binds every interface whatever its settings say, and here there is only one.
set -euo pipefail

# A container without a network (docker run --network none) is such a place already.
if [ "$(ls /sys/class/net)" = lo ]; then
    exec "$@"
fi

inside='/sbin/ip link set lo up && exec "$@"'
if unshare --net true 2>/dev/null; then
    exec unshare --net bash -c "$inside" loopback-only "$@"
elif unshare --user --map-root-user --net true 2>/dev/null; then
    exec unshare --user --map-root-user --net bash -c "$inside" loopback-only "$@"
fi
echo "$0: network namespaces are not permitted here; run as root, allow user namespaces" \
     "(sysctl kernel.unprivileged_userns_clone=1), or run this step in a container started with" \
     "--network none" >&2
exit 1
