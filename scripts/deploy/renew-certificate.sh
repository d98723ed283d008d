#!/bin/sh
# Shell, because an ACME client calls it as root from its timer, where there is neither Rust nor a
# person's PATH: only Docker.
#
# Puts a renewed certificate where nginx of a stack reads it, and has nginx show it.
#
#   RENEWED_LINEAGE=FOLDER scripts/deploy/renew-certificate.sh PROJECT
#
# FOLDER holds fullchain.pem and privkey.pem; certbot sets the variable for its --deploy-hook. Run as root.
# Exit codes: 0 nginx shows it; 1 it does not, and shows what it did before; 2 wrong use.
set -eu

# The image's user `nginx`, by number: the host knows no such name.
NGINX_USER=101

fail() {
    echo "error: $1" >&2
    exit "${2:-1}"
}

[ $# = 1 ] || fail 'usage: RENEWED_LINEAGE=FOLDER renew-certificate.sh PROJECT' 2
project=$1
new=${RENEWED_LINEAGE:-}
[ -n "$new" ] || fail 'RENEWED_LINEAGE names no folder; certbot sets it for its --deploy-hook' 2
for file in fullchain.pem privkey.pem; do
    [ -r "$new/$file" ] || fail "$new/$file cannot be read; run this as root, on the renewed pair" 2
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
install -o "$NGINX_USER" -g "$NGINX_USER" -m 0400 "$new/privkey.pem" "$aside/privkey.pem"
install -m 0644 "$new/fullchain.pem" "$aside/fullchain.pem"
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
echo "nginx of $project shows the certificate of $new" >&2
