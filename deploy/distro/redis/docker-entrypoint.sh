#!/bin/sh
# Shell, because it must start from an image that holds Redis and nothing to compile with: it gives
# up root and becomes the server. Its interface is the one of the official image.
set -eu

# usage: decides_protection ARG... - does an argument, or the configuration file, settle
# `protected-mode`? A file that includes others might, so it counts as settled: the strict default
# then stays in force.
decides_protection() {
    for protection_arg in "$@"; do
        case $protection_arg in
            --protected-mode | '--protected-mode '*) return 0 ;;
        esac
    done
    case ${1-} in
        '' | -*) return 1 ;;
    esac
    grep -qiE '^[[:space:]]*"?(protected-mode|include)"?[[:space:]]' "$1"
}

# usage: become_redis ARG... - from root to the user `redis`, who then owns the data
become_redis() {
    find . ! -user redis -exec chown redis:redis '{}' +
    exec setpriv --reuid=redis --regid=redis --init-groups -- "$0" "$@"
}

# usage: start_server [CONFIG] [OPTION...]
start_server() {
    # Debian's default refuses every client that is not on the loopback interface: in a container,
    # all of them. The official image is built with the other default.
    decides_protection "$@" || set -- "$@" --protected-mode no
    # What Redis writes is nobody else's to read.
    if [ "$(umask)" = 0022 ]; then
        umask 0077
    fi
    exec redis-server "$@"
}

# usage: _main [redis-server] [CONFIG.conf] [OPTION...] | COMMAND [ARG...]
_main() {
    case ${1-} in
        -* | *.conf) set -- redis-server "$@" ;;
    esac
    if [ "${1-}" != redis-server ]; then
        exec "$@"
    fi
    if [ "$(id -u)" = 0 ]; then
        become_redis "$@"
    fi
    shift
    case ${1-} in
        -h | --help | -v | --version) exec redis-server "$@" ;;
    esac
    start_server "$@"
}

_main "$@"
