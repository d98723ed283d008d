#!/bin/sh
# Shell, because it runs inside images of two kinds with nothing else to rely on. It is the health probe
# of nginx, PostgreSQL and Redis:
#
#     probe.sh COMMAND [ARG...]
#
# It asks until COMMAND succeeds, for a second or so, and fails with what that said last. A server that
# starts is ready some moment between two probes of the engine, each of which takes about 50 ms, most of it
# the engine's work: asked from inside, that moment is known some 20 ms later, and the engine has less to
# do while everything starts. One that is up answers the first time.
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
