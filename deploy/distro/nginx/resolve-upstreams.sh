#!/bin/sh
# Shell, because it must start from an image that holds nginx and nothing to compile with: gives nginx
# 1.22 what `server NAME:PORT resolve` does since 1.27.3, so that one template serves both. Nothing else
# of this folder knows of it, and with a newer nginx it can go.
set -eu

TEMPLATES=${NGINX_ENVSUBST_TEMPLATE_DIR:-/etc/nginx/templates}
# The name and the port of such a server.
RESOLVE='^\([[:space:]]*server[[:space:]]\{1,\}\)\([A-Za-z0-9_.-]\{1,\}\):\([0-9]\{1,\}\)\(.*\)[[:space:]]resolve\(.*;\)'
# Seconds between two looks. Docker's name server is on this host.
PAUSE=1
# Seconds that one look may take.
LIMIT=3

# usage: names - a filter: the names in a configuration that shall be looked up
names() {
    sed -n "s/$RESOLVE.*/\\2/p" | sort -u
}

# usage: address NAME - the first one, or nothing
address() {
    address_lines=$(timeout "$LIMIT" getent ahostsv4 "$1") || :
    printf '%s\n' "${address_lines%%[[:space:]]*}"
}

# usage: addresses NAME... - NAME=ADDRESS for those that have one
addresses() {
    for addresses_name in "$@"; do
        addresses_found=$(address "$addresses_name")
        [ -z "$addresses_found" ] || printf '%s=%s\n' "$addresses_name" "$addresses_found"
    done
}

# usage: put_addresses - a filter: writes addresses in place of names. A server without one is down, as
# it is for a newer nginx: every request is answered with 502 at once.
put_addresses() {
    put_text=$(cat)
    for put_name in $(printf '%s\n' "$put_text" | names); do
        put_address=$(address "$put_name")
        put_down=
        [ -n "$put_address" ] || put_down=' down'
        put_server="\\1${put_address:-0.0.0.0}:\\3\\4$put_down\\5"
        put_text=$(printf '%s\n' "$put_text" |
            sed "/[[:space:]]$put_name:/s/$RESOLVE/$put_server/")
    done
    printf '%s\n' "$put_text"
}

# usage: is_down - whether nginx was told that a server is down
is_down() {
    grep -qs '[[:space:]]server[[:space:]].*0\.0\.0\.0:.* down' "${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}"/*.conf
}

# usage: follow NAME... - has nginx read new addresses for as long as the container runs. A name that is
# gone keeps its last one: its container stopped, and may come back there.
follow() {
    follow_known=$(addresses "$@")
    while sleep "$PAUSE"; do
        follow_now=$(addresses "$@")
        # Somebody else may have rendered at a moment at which there was no address: then this one is new to
        # nginx, although it was known here.
        if [ -n "$follow_now" ] && { [ "$follow_now" != "$follow_known" ] || is_down; }; then
            # Tried again in the next round if nginx has not started yet.
            if /docker-entrypoint.d/20-envsubst-on-templates.sh && nginx -s reload 2>/dev/null; then
                follow_known=$follow_now
            fi
        fi
    done
}

case ${1-} in
    --follow)
        # shellcheck disable=SC2046 # one word per name is what is wanted
        set -- $(find "$TEMPLATES" -follow -type f -exec cat '{}' + 2>/dev/null | names)
        [ $# = 0 ] || follow "$@"
        ;;
    *) put_addresses ;;
esac
