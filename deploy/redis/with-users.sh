#!/bin/sh
# Shell, because it runs inside images that hold Redis and nothing to compile with. It writes the
# users of Redis, whose passwords come from files, and becomes the server:
#
#     with-users.sh NEXT [ARG...]
#
# The file holds hashes only. It is made anew at each start, in /tmp, and redis.conf names it.
#
# `default` is off and has no password, so nobody can be it. It keeps its rights all the same: Redis
# 7.0 replays its log as that user, and transactions that the user may not run would be left out,
# with all their keys, and no more than a line in the log to tell.
set -eu

USERS=/tmp/users.acl

# usage: hashes FILE - one `#sha256` for each line: the current password, and previous ones that are
# still accepted
hashes() {
    [ -r "$1" ] || {
        echo "with-users: cannot read the secret $1 as uid $(id -u)." \
            "\`cargo xtask up\` writes it." >&2
        exit 1
    }
    while read -r password || [ -n "$password" ]; do
        case $password in
        "" | "#"*) ;; # a comment is no password, least of all one that can be guessed
        *) printf ' #%s' "$(printf %s "$password" | sha256sum | cut -c -64)" ;;
        esac
    done <"$1"
}

# usage: _main NEXT [ARG...]
_main() {
    umask 077
    backend=$(hashes /run/secrets/redis_password)
    admin=$(hashes /run/secrets/redis_admin_password)
    cat >"$USERS" <<END
user default off resetpass allkeys allchannels +@all
user health on nopass resetkeys resetchannels -@all +ping
user admin on$admin allkeys allchannels +@all
user backend on$backend resetkeys resetchannels -@all $(grep -v '^#' /usr/local/etc/redis/backend.acl | tr '\n' ' ')
END
    exec "$@"
}

_main "$@"
