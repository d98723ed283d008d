#!/bin/sh
# Shell, because it must start from an image that holds nginx and nothing to compile with, and
# because `*.envsh` hooks set variables for it. Its interface is the one of the official image.
set -eu

# usage: say TEXT
say() {
    [ -n "${NGINX_ENTRYPOINT_QUIET_LOGS-}" ] || printf '%s: %s\n' docker-entrypoint "$1" >&2
}

# usage: run_hook FILE
run_hook() {
    case $1 in
        *.sh | *.envsh) [ -x "$1" ] || { say "ignoring $1, it is not executable" && return 0; } ;;
        *) say "ignoring $1" && return 0 ;;
    esac
    say "running $1"
    case $1 in
        *.sh) "$1" ;;
        *)
            set +u
            # shellcheck source=/dev/null
            . "$1"
            set -u
            ;;
    esac
}

# usage: run_hooks - all of /docker-entrypoint.d, in order of their numbers
run_hooks() {
    IFS='
'
    # shellcheck disable=SC2046 # one word per line is what is wanted
    set -- $(find /docker-entrypoint.d/ -follow -type f | sort -V)
    unset IFS
    for hook in "$@"; do
        run_hook "$hook"
    done
}

# usage: _main [COMMAND [ARG...]]
_main() {
    case ${1-} in
        nginx | nginx-debug)
            # Before the hooks: an address that changes while they run is found changed, and not missed.
            resolve-upstreams --follow &
            run_hooks
            ;;
    esac
    exec "$@"
}

_main "$@"
