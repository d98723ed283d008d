#!/bin/sh
# Shell, because it runs in nginx' container. Moves requests to another container of the backend and back,
# for `cargo xtask deploy` (x-switch-over in compose.yaml):
#
#     switch-backend.sh to      every request that comes from now on goes to the container $BACKEND_GREEN
#     switch-backend.sh back    they go to the service's own container again, as at every start
#     switch-backend.sh probe   asks for an answer of the backend for five seconds, again and again, and
#                               prints each one's status; 000 is none
#
# It is a file that nginx looks for at each request (templates/default.conf.template), and no reload: that would close
# connections which visitors hold open, one of them perhaps in the moment in which a request is sent on it. /tmp
# begins empty whenever the container starts.
set -eu

SWITCHED=/tmp/switched

case ${1-} in
    to) : >"$SWITCHED" ;;
    back)
        [ -e "$SWITCHED" ] || exit 0
        rm -f "$SWITCHED"
        # Whoever saw the file a moment ago has connected by then.
        sleep 1
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
        echo "usage: switch-backend.sh to | back | probe" >&2
        exit 2
        ;;
esac
