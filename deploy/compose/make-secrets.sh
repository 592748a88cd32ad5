#!/usr/bin/env bash
# Makes the passwords of deploy/compose/compose.yaml, each once; what is there stays as it is.
#
# The files may be read by everybody, since each container's user is another one; the folder may
# not: on this machine only its owner gets at them.
set -euo pipefail
cd "$(dirname "$0")"
umask 022
mkdir -p secrets
chmod 700 secrets

word() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }
keep() {
    [ -e "secrets/$1" ] && return
    printf '%s' "$2" > "secrets/$1"
    echo "made secrets/$1"
}

if [ ! -e secrets/redis_conf ] || [ ! -e secrets/monro_broker ]; then
    rm -f secrets/redis_conf secrets/monro_broker
    redis=$(word)
    keep redis_conf "bind * -::*
port 6379
save \"\"
appendonly no
requirepass $redis
maxmemory 256mb
maxmemory-policy noeviction
"
    keep monro_broker "redis://:$redis@redis:6379/0"
fi
# The database takes its password when it is first started: a new one would not fit it.
if [ ! -e secrets/postgres_password ]; then
    postgres=$(word)
    keep postgres_password "$postgres"
    rm -f secrets/monro_ledger
    keep monro_ledger "postgresql+psycopg://monro:$postgres@postgres:5432/monro"
fi
keep orthanc_users.json "{\"RegisteredUsers\": {\"monro\": \"$(word)\"}}"
keep grafana_password "$(word)"
