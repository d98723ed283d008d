#!/bin/sh
# Shell, because it runs inside the image: redis-cli as the user `admin`, whose password it reads
# from the secret's file, so that it stands in no argument list.
#
#     docker exec CONTAINER admin-cli [ARG...]
set -eu

REDISCLI_AUTH=$(head -n 1 /run/secrets/redis_admin_password)
export REDISCLI_AUTH
exec redis-cli --user admin "$@"
