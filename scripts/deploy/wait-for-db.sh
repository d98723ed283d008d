#!/bin/sh
# Shell, because it runs on hosts that have neither Rust nor a checkout's build: only Docker and
# the image, or PostgreSQL's own client.
#
# Blocks until PostgreSQL accepts connections. Needs no password.
#
#   scripts/deploy/wait-for-db.sh HOST PORT [TIMEOUT_S]
#
# Exit codes: 0 it answers; 1 it did not within the time-out (60 s); 2 wrong use.
# Asked with, in this order: pg_isready; the `backend` binary on PATH; the image named by
# BACKEND_IMAGE. All three judge alike: a server that is starting up is not ready.
set -eu

usage() {
    echo "usage: wait-for-db.sh HOST PORT [TIMEOUT_S]" >&2
    echo "error: $1" >&2
    exit 2
}

# is_number TEXT: whether it is a decimal number of at most six digits.
is_number() {
    case $1 in
        '' | *[!0-9]* | ???????*) return 1 ;;
    esac
}

# ask_pg_isready: polls until the deadline and prints each new reason once.
ask_pg_isready() {
    start=$(date +%s)
    last=
    while :; do
        # -t 3: a host that swallows packets does not use up the whole time-out in one attempt.
        if reason=$(pg_isready -h "$host" -p "$port" -t 3 2>&1); then
            return 0
        fi
        if [ "$reason" != "$last" ]; then
            echo "waiting for PostgreSQL at $host:$port: $reason" >&2
            last=$reason
        fi
        if [ $(($(date +%s) - start)) -ge "$timeout" ]; then
            echo "error: PostgreSQL at $host:$port did not answer within $timeout s." \
                "The last answer: $reason" >&2
            return 1
        fi
        sleep 1
    done
}

case $# in
    2 | 3) ;;
    *) usage "expected 2 or 3 arguments, got $#" ;;
esac
host=$1
port=$2
timeout=${3:-60}
case $host in
    '') usage "HOST is empty" ;;
    # pg_isready would take `-x` for an option and a path for a socket's folder.
    -* | */*) usage "HOST is \`$host\`: give a host name or an address" ;;
esac
if ! is_number "$port" || [ "$port" -lt 1 ] || [ "$port" -gt 65535 ]; then
    usage "PORT is \`$port\`: give a number from 1 to 65535"
fi
is_number "$timeout" || usage "TIMEOUT_S is \`$timeout\`: give a number of seconds"

if command -v pg_isready >/dev/null 2>&1; then
    ask_pg_isready
elif command -v backend >/dev/null 2>&1; then
    exec backend wait --host "$host" --port "$port" --timeout "$timeout"
elif [ -n "${BACKEND_IMAGE:-}" ] && command -v docker >/dev/null 2>&1; then
    # The host's network: HOST and PORT mean the same inside as outside.
    exec docker run --rm --network host "$BACKEND_IMAGE" \
        wait --host "$host" --port "$port" --timeout "$timeout"
else
    usage "nothing to ask with: install PostgreSQL's client (pg_isready), put \`backend\` on PATH, \
or set BACKEND_IMAGE to the name of the backend's image"
fi
