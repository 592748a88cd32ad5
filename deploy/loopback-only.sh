#!/usr/bin/env bash
# Runs a command in a network namespace of its own that holds nothing but loopback:
# Orthanc binds every interface whatever its settings say, and here there is only one.
set -euo pipefail

inside='/sbin/ip link set lo up && exec "$@"'
if [ "$(id -u)" = 0 ]; then
    exec unshare --net bash -c "$inside" loopback-only "$@"
elif unshare --user --map-root-user --net true 2>/dev/null; then
    exec unshare --user --map-root-user --net bash -c "$inside" loopback-only "$@"
fi
echo "$0: network namespaces are not permitted here; run as root, or allow user namespaces" \
     "(sysctl kernel.unprivileged_userns_clone=1)" >&2
exit 1
