#!/bin/sh
# Shell, because an ACME client calls it as root from its timer, where there is neither Rust nor a
# person's PATH: only Docker.
#
# Puts a renewed certificate where nginx of a stack reads it, and has nginx show it.
#
#   RENEWED_LINEAGE=FOLDER scripts/deploy/renew-certificate.sh PROJECT
#   LEGO_CERT_PATH=FILE LEGO_CERT_KEY_PATH=FILE scripts/deploy/renew-certificate.sh PROJECT
#
# FOLDER holds fullchain.pem and privkey.pem; certbot sets the variable for its --deploy-hook. lego sets the other two
# for its hooks, and from version 5 on calls them LEGO_HOOK_CERT_PATH and LEGO_HOOK_CERT_KEY_PATH. Run as root.
# Exit codes: 0 nginx shows it; 1 it does not, and shows what it did before; 2 wrong use.
set -eu

# The image's user `nginx`, by number: the host knows no such name.
NGINX_USER=101

fail() {
    echo "error: $1" >&2
    exit "${2:-1}"
}

# Whether some folder on the way to this one lets no other user pass.
is_closed() {
    above=$1
    while [ "$above" != / ]; do
        above=$(dirname "$above")
        case $(stat -c %A "$above") in
            *[xt]) ;;
            *) return 0 ;;
        esac
    done
    return 1
}

[ $# = 1 ] || fail 'usage: RENEWED_LINEAGE=FOLDER renew-certificate.sh PROJECT' 2
project=$1
if [ -n "${RENEWED_LINEAGE:-}" ]; then
    chain=$RENEWED_LINEAGE/fullchain.pem
    key=$RENEWED_LINEAGE/privkey.pem
else
    chain=${LEGO_HOOK_CERT_PATH:-${LEGO_CERT_PATH:-}}
    key=${LEGO_HOOK_CERT_KEY_PATH:-${LEGO_CERT_KEY_PATH:-}}
fi
if [ -z "$chain" ] || [ -z "$key" ]; then
    fail 'nothing names the renewed pair: certbot sets RENEWED_LINEAGE for its --deploy-hook, a folder, and lego
       LEGO_CERT_PATH and LEGO_CERT_KEY_PATH (version 5: LEGO_HOOK_CERT_PATH and LEGO_HOOK_CERT_KEY_PATH)' 2
fi
for file in "$chain" "$key"; do
    [ -r "$file" ] || fail "$file cannot be read; run this as root, on the renewed pair" 2
done

nginx=$(docker ps --all --quiet --filter "label=com.docker.compose.project=$project" \
    --filter label=com.docker.compose.service=nginx | head -n 1)
[ -n "$nginx" ] || fail "$project has no container of nginx; bring the stack up, or mind the project's name"
folder=$(docker inspect --format \
    '{{range .Mounts}}{{if eq .Destination "/etc/nginx/certs"}}{{.Source}}{{end}}{{end}}' "$nginx")
[ -d "$folder" ] || fail "nginx of $project reads certificates from no folder of this host"

# Both are whole before the first gets its name; nginx reads them at a reload only.
aside=$(mktemp -d "$folder/.renewal.XXXXXX")
is_good=no
# With a pair that it refuses, or half of a pair, nginx would not start again: whatever ends this before nginx has
# said that the pair is good puts the one before back.
trap 'put_back; rm -rf "$aside"' EXIT
trap 'exit 1' HUP INT TERM
put_back() {
    [ "$is_good" = no ] || return 0
    for file in privkey.pem fullchain.pem; do
        [ ! -e "$aside/before-$file" ] || mv "$aside/before-$file" "$folder/$file"
    done
}
# As `cargo xtask cert install` leaves them. In a folder that is closed to other users of the host both belong to its
# owner, whose xtask compares them at each start, and nginx reads them all the same. In an open one the key is nginx'.
owner=$(stat -c %u:%g "$folder")
if is_closed "$folder"; then
    install -o "${owner%:*}" -g "${owner#*:}" -m 0644 "$key" "$aside/privkey.pem"
else
    install -o "$NGINX_USER" -g "$NGINX_USER" -m 0400 "$key" "$aside/privkey.pem"
fi
install -o "${owner%:*}" -g "${owner#*:}" -m 0644 "$chain" "$aside/fullchain.pem"
sync "$aside/privkey.pem" "$aside/fullchain.pem"
for file in privkey.pem fullchain.pem; do
    [ ! -e "$folder/$file" ] || cp -p "$folder/$file" "$aside/before-$file"
    mv "$aside/$file" "$folder/$file"
done

if [ "$(docker inspect --format '{{.State.Running}}' "$nginx")" != true ]; then
    is_good=unknown
    echo "the certificate is in its place; nginx of $project does not run, and reads it when it starts" >&2
    exit 0
fi
if ! docker exec "$nginx" nginx -t -q; then
    fail "nginx refuses the new certificate, and the one before is back in its place"
fi
is_good=yes
docker exec "$nginx" nginx -s reload
echo "nginx of $project shows the certificate in $chain" >&2
