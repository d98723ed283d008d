#!/bin/sh
# Shell, because it runs inside the image: redis-cli as the user `admin`, whose password it reads
# from the secret's file, so that it stands in no argument list.
#
#     docker exec CONTAINER admin-cli [ARG...]
set -eu

# While the password changes the file holds several, the new one first, and the server knows any of them.
while read -r REDISCLI_AUTH; do
    case $REDISCLI_AUTH in "" | "#"*) continue ;; esac
    export REDISCLI_AUTH
    [ "$(redis-cli --user admin ping 2>&1 </dev/null)" != PONG ] || break
done </run/secrets/redis_admin_password
exec redis-cli --user admin "$@"
