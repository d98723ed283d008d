#!/bin/sh
# Shell, because it runs inside the image: redis-cli as the user `admin`, whose password it reads
# from the secret's file, so that it stands in no argument list.
#
#     docker exec CONTAINER admin-cli [ARG...]
set -eu

# While the password changes the file holds several, the new one first, and the server knows any of them. A server that
# loads, is busy or cannot persist refuses to answer `ping`, but not the password.
found=
while read -r password; do
    case $password in "" | "#"*) continue ;; esac
    : "${found:=$password}"
    case $(REDISCLI_AUTH=$password redis-cli --user admin ping 2>&1 </dev/null) in
    *WRONGPASS* | *"AUTH failed"*) ;;
    *)
        found=$password
        break
        ;;
    esac
done </run/secrets/redis_admin_password
REDISCLI_AUTH=$found
export REDISCLI_AUTH
exec redis-cli --user admin "$@"
