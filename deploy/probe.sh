#!/bin/sh
# Shell, because it runs inside images of two kinds with nothing else to rely on. It is the health probe
# of nginx, PostgreSQL and Redis:
#
#     probe.sh COMMAND [ARG...]
#
# It asks until COMMAND succeeds, for a second or so, and fails with what that said last. A server that
# starts is ready some moment between two probes of the engine, and each of those costs 50 ms of a
# processor, most of it the engine's: asked from inside, that moment is known 20 ms later, and the start
# is not slowed down by ten processes a second. One that is up answers the first time.
set -eu

tries=50
until said=$("$@" 2>&1); do
    code=$?
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then
        printf '%s\n' "$said" >&2
        exit "$code"
    fi
    sleep 0.02
done
printf '%s\n' "$said"
