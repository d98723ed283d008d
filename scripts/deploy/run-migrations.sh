#!/bin/sh
# Shell, because it runs on hosts that have neither Rust nor a checkout's build: only Docker and
# the image, or the `backend` binary.
#
# Applies the SQL migrations in order, with the one engine there is: the backend's own. The files
# are compiled into it, so what is applied is what that version of the program needs.
#
#   scripts/deploy/run-migrations.sh            apply what is pending
#   scripts/deploy/run-migrations.sh status     show what is applied; writes nothing
#
# With `backend` on PATH it runs that, configured by this shell's environment (PG_HOST, PG_PORT,
# PG_DBNAME, PG_OWNER_PASSWORD or PG_OWNER_PASSWORD_FILE). Otherwise it runs the image through Compose in the project's root,
# configured by the .env there; ENV_FILE names another, such as .env.production.
#
# Exit codes: 0 done, nothing is pending; 1 a migration failed; 2 wrong use.
set -eu

fail() {
    echo "error: $1" >&2
    exit 2
}

case "$*" in
    '' | status | 'status --format json' | 'status --format table') ;;
    *)
        echo "usage: run-migrations.sh [status [--format table|json]]" >&2
        fail "unknown arguments: $*"
        ;;
esac

if command -v backend >/dev/null 2>&1; then
    exec backend migrate "$@"
fi

command -v docker >/dev/null 2>&1 ||
    fail "neither \`backend\` nor \`docker\` is on PATH: install Docker, or put the binary there"

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cd "$root"
env_file=${ENV_FILE:-.env}
[ -f "$env_file" ] || fail "$root/$env_file is missing: \`cargo xtask up\` writes .env, and ENV_FILE \
names another file"

# --no-deps: this runs before or beside the stack and starts none of it. PostgreSQL must answer:
# wait-for-db.sh waits for it. -T: no terminal, so that it also runs from cron and CI.
exec docker compose --env-file "$env_file" run --rm --no-deps -T backend migrate "$@"
