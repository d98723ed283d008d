#!/bin/sh
# Shell, because it runs in nginx' container. Moves requests to another container of the backend and back,
# for `cargo xtask deploy` (x-switch-over in compose.yaml):
#
#     switch-backend.sh to ADDRESS:PORT    new requests go there; returns when the last old one has ended
#     switch-backend.sh back               they go to the service's own container again, as at every start
#     switch-backend.sh probe              asks for an answer of the backend for five seconds, again and
#                                          again, and prints each one's status; 000 is none
#
# Both changes are files of their own beside what is rendered from the templates, so that a reload does
# not undo them; and in /tmp, which begins empty whenever the container starts.
set -eu

FOLDER=${NGINX_ENVSUBST_OUTPUT_DIR:-/tmp}
GROUP=$FOLDER/backend-group.map
UPSTREAM=$FOLDER/deployed.conf
# There from the first change until nginx is known to have followed it.
PENDING=$FOLDER/switching
# Seconds. nginx ends a worker that is to stop after 14 (worker_shutdown_timeout).
LIMIT=25

# usage: workers - the processes that serve, one line each: the children of nginx' first process that are
# nginx as well
workers() {
    workers_master=$(cat "$FOLDER/nginx.pid")
    for workers_stat in /proc/[0-9]*/stat; do
        # One may end meanwhile.
        read -r workers_pid workers_name _ workers_parent _ 2>/dev/null <"$workers_stat" || continue
        [ "$workers_name $workers_parent" != "(nginx) $workers_master" ] || echo "$workers_pid"
    done
}

# usage: reload - has nginx read its files anew, and waits until those that had read the old ones are gone
reload() {
    : >"$PENDING"
    reload_old=$(workers)
    nginx -s reload
    reload_end=$(($(date +%s) + LIMIT))
    for reload_pid in $reload_old; do
        while [ -d "/proc/$reload_pid" ]; do
            if [ "$(date +%s)" -gt "$reload_end" ]; then
                echo "a worker of nginx still serves requests that came before the change" >&2
                return 1
            fi
            sleep 0.05
        done
    done
    rm -f "$PENDING"
}

case ${1-} in
    to)
        printf 'upstream deployed {\n    server %s max_fails=0;\n    keepalive 32;\n    keepalive_timeout 5s;\n}\n' \
            "${2:?an address with a port is missing}" >"$UPSTREAM"
        printf 'group deployed;\n' >"$GROUP"
        if ! nginx -t -q; then
            rm -f "$GROUP" "$UPSTREAM"
            exit 1
        fi
        reload
        ;;
    back)
        [ -e "$GROUP" ] || [ -e "$PENDING" ] || exit 0
        rm -f "$GROUP.aside" "$UPSTREAM.aside"
        for file in "$GROUP" "$UPSTREAM"; do
            [ ! -e "$file" ] || mv "$file" "$file.aside"
        done
        if ! nginx -t -q; then
            # nginx goes on as it was told before, and so do the files.
            for file in "$GROUP" "$UPSTREAM"; do
                [ ! -e "$file.aside" ] || mv "$file.aside" "$file"
            done
            exit 1
        fi
        reload
        rm -f "$GROUP.aside" "$UPSTREAM.aside"
        ;;
    probe)
        url=http://127.0.0.1/api/session
        [ "${NGINX_SCHEME:-http}" = http ] || url=https://127.0.0.1/api/session
        end=$(($(date +%s) + 5))
        while [ "$(date +%s)" -lt "$end" ]; do
            # Each with a connection of its own, as from a visitor who comes now. Whose certificate it is does
            # not matter here.
            curl -s -k -m 5 -o /dev/null -A xtask-deploy -w '%{http_code}\n' "$url" || :
            sleep 0.1
        done
        ;;
    *)
        echo "usage: switch-backend.sh to ADDRESS:PORT | back | probe" >&2
        exit 2
        ;;
esac
