#!/bin/sh
# Shell, because it must start from an image that holds PostgreSQL and nothing to compile with: it
# makes the data directory on the first start, and becomes the server. Its interface (variables,
# /docker-entrypoint-initdb.d, `--user`) is the one of the official image.
set -eu

INIT_SCRIPTS=/docker-entrypoint-initdb.d
# Asked once: where the storage driver is a slow one, each program that is started shows in the start's time.
USER_ID=$(id -u)

# usage: say TEXT
say() {
    printf '%s: %s\n' docker-entrypoint "$1" >&2
}

# usage: die TEXT
die() {
    say "error: $1"
    exit 1
}

# usage: load NAME [DEFAULT] - sets and exports NAME from itself, from the file that NAME_FILE
# names, or from DEFAULT
load() {
    eval "load_value=\${$1-} load_file=\${$1_FILE-}"
    if [ -n "$load_file" ]; then
        [ -z "$load_value" ] || die "both $1 and $1_FILE are set. Keep one of them."
        [ -r "$load_file" ] || die "$1_FILE names $load_file, which uid $USER_ID cannot read."
        load_value=$(cat "$load_file")
    fi
    export "$1=${load_value:-${2-}}"
    unset "$1_FILE" load_value load_file
}

# usage: load_settings
load_settings() {
    load POSTGRES_PASSWORD
    load POSTGRES_USER postgres
    load POSTGRES_DB "$POSTGRES_USER"
    load POSTGRES_INITDB_ARGS
    load POSTGRES_INITDB_WALDIR
    load POSTGRES_HOST_AUTH_METHOD
}

# usage: only_asks ARG... - is this a server that prints something and ends?
only_asks() {
    for only_asks_arg in "$@"; do
        case $only_asks_arg in
            '-?' | --help | --describe-config | -V | --version) return 0 ;;
        esac
    done
    return 1
}

# usage: own DIRECTORY MODE - creates it and, as root, gives it to the server's user
own() {
    [ -d "$1" ] || mkdir -p "$1" || die "cannot create $1 as uid $USER_ID. Mount a volume there, or start as root."
    chmod "$2" "$1" 2>/dev/null || :
    [ "$USER_ID" != 0 ] || find "$1" ! -user postgres -exec chown postgres:postgres '{}' +
}

# usage: prepare_directories
prepare_directories() {
    own "$PGDATA" 0700
    own /run/postgresql 3777
    [ -z "$POSTGRES_INITDB_WALDIR" ] || own "$POSTGRES_INITDB_WALDIR" 0700
}

# usage: require_password
require_password() {
    if [ "$POSTGRES_HOST_AUTH_METHOD" = trust ]; then
        say "warning: POSTGRES_HOST_AUTH_METHOD=trust lets anyone who reaches the port in, as any role."
    elif [ -z "$POSTGRES_PASSWORD" ]; then
        die "no password for the new database.
  Set POSTGRES_PASSWORD, or POSTGRES_PASSWORD_FILE to the path of a file that holds it.
  (POSTGRES_HOST_AUTH_METHOD=trust needs none, and lets everybody in.)"
    fi
}

# usage: forget_unfinished - clears what a first start left that did not come to its end. Nobody
# but the init scripts has written there: the temporary server has no port.
forget_unfinished() {
    [ -e "$PGDATA/.init-unfinished" ] || return 0
    say "the first start did not finish; beginning again with an empty directory"
    find "$PGDATA" -mindepth 1 -delete
    [ -z "$POSTGRES_INITDB_WALDIR" ] || find "$POSTGRES_INITDB_WALDIR" -mindepth 1 -delete
}

# usage: make_cluster
make_cluster() {
    id -un >/dev/null 2>&1 || die "uid $USER_ID has no name in /etc/passwd, and initdb wants one. Use 70."
    eval "set -- $POSTGRES_INITDB_ARGS"
    [ -z "$POSTGRES_INITDB_WALDIR" ] || set -- --waldir="$POSTGRES_INITDB_WALDIR" "$@"
    # `flush` does it for this and for all that the init scripts write, before any of it counts.
    set -- --no-sync "$@"
    if [ -n "$POSTGRES_PASSWORD" ]; then
        printf '%s\n' "$POSTGRES_PASSWORD" | initdb --username="$POSTGRES_USER" --pwfile=/dev/stdin "$@"
    else
        initdb --username="$POSTGRES_USER" "$@"
    fi
    : >"$PGDATA/.init-unfinished"
    printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
}

# usage: docker_process_sql [PSQL_ARG...] - psql on the temporary server; init scripts that are
# sourced may call it, as in the official image
docker_process_sql() {
    PGHOST='' PGHOSTADDR='' psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password \
        --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" "$@"
}

# usage: asks_temporary_server - does it answer on the socket?
asks_temporary_server() {
    PGHOST='' PGHOSTADDR='' pg_isready --quiet --username "$POSTGRES_USER" --dbname postgres
}

# usage: start_temporary_server postgres ARG... - on the socket only, with the real server's options.
# Not by pg_ctl, which looks ten times a second: a first start would wait for the clock.
start_temporary_server() {
    # Later options win, so the closed port comes last. What it writes is flushed by `flush`.
    "$@" -p "${PGPORT:-5432}" -c listen_addresses='' -c fsync=off &
    temporary_server=$!
    temporary_tries=0
    until asks_temporary_server; do
        temporary_tries=$((temporary_tries + 1))
        if ! kill -0 "$temporary_server" 2>/dev/null || [ "$temporary_tries" -gt 3000 ]; then
            die "the temporary server for the init scripts does not answer; it says why above."
        fi
        sleep 0.02
    done
}

# usage: stop_temporary_server - open transactions are rolled back, and a checkpoint is written
stop_temporary_server() {
    kill -INT "$temporary_server" && wait "$temporary_server"
}

# usage: flush - puts the new data directory on the disk, with its log and tablespaces. One call for the
# whole file system takes a tenth of the time of one for each of a thousand files
flush() {
    for flush_place in "$PGDATA" "$PGDATA/pg_wal" "$PGDATA"/pg_tblspc/*; do
        [ -e "$flush_place" ] || continue
        if ! flushes_as_a_whole "$flush_place"; then
            initdb --sync-only --pgdata="$PGDATA" >/dev/null && return 0
            die "the new data directory could not be written to the disk (fsync)."
        fi
        sync --file-system "$flush_place/." || die "$flush_place could not be written to the disk (syncfs)."
    done
}

# usage: flushes_as_a_whole DIRECTORY - of these file systems it is known; FUSE, say, does not pass it on
flushes_as_a_whole() {
    case $(stat --file-system --format=%T "$1/.") in
        ext2/ext3 | xfs | btrfs | f2fs | zfs | tmpfs) return 0 ;;
    esac
    return 1
}

# usage: create_database
create_database() {
    printf '%s\n' "SELECT format('CREATE DATABASE %I', :'db')" \
        "WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'db') \\gexec" |
        docker_process_sql --dbname postgres --quiet --set db="$POSTGRES_DB"
}

# usage: has_init_scripts
has_init_scripts() {
    for has_init_script in "$INIT_SCRIPTS"/*; do
        [ ! -e "$has_init_script" ] || return 0
    done
    return 1
}

# usage: create_database_alone - the same without a server: starting and stopping one takes longer
# than all the rest of what a start without init scripts has to do
create_database_alone() {
    case $POSTGRES_DB in
        postgres | template0 | template1) return 0 ;;
    esac
    printf 'CREATE DATABASE "%s"\n' "$(printf '%s' "$POSTGRES_DB" | sed 's/"/""/g')" |
        postgres --single -c fsync=off -c exit_on_error=true -c log_min_messages=error postgres >/dev/null
}

# usage: run_packed_sql FILE UNPACKER... - unpacked first, because a pipe would hide that half a file is missing
run_packed_sql() {
    say "running $1"
    sql_packed=$1
    shift
    sql_plain=$(mktemp)
    "$@" <"$sql_packed" >"$sql_plain"
    docker_process_sql --file "$sql_plain"
    rm -f "$sql_plain"
}

# usage: run_init_script FILE
run_init_script() {
    case $1 in
        *.sh)
            if [ -x "$1" ]; then
                say "running $1"
                "$1"
            else
                say "sourcing $1"
                set +u
                # shellcheck source=/dev/null
                . "$1"
                set -u
            fi
            ;;
        *.sql)
            say "running $1"
            docker_process_sql --file "$1"
            ;;
        *.sql.gz) run_packed_sql "$1" gunzip ;;
        *.sql.xz) run_packed_sql "$1" xz -d ;;
        *.sql.zst) run_packed_sql "$1" zstd -dq ;;
        *) say "ignoring $1" ;;
    esac
}

# usage: initialise postgres ARG...
initialise() {
    require_password
    # Found out now, and not after initdb has filled the directory.
    { [ -r "$INIT_SCRIPTS" ] && [ -x "$INIT_SCRIPTS" ]; } || die "uid $USER_ID cannot read $INIT_SCRIPTS."
    make_cluster
    if has_init_scripts; then
        run_init_scripts "$@"
    else
        create_database_alone
    fi
    flush
    rm "$PGDATA/.init-unfinished"
    # On the disk before the first write is answered: the mark would have the directory emptied.
    sync "$PGDATA"
    say "the data directory is ready; starting the server"
}

# usage: run_init_scripts postgres ARG...
run_init_scripts() {
    export PGPASSWORD="${PGPASSWORD-$POSTGRES_PASSWORD}"
    # As process 1 the shell would ignore both.
    trap 'stop_temporary_server || :; exit 130' INT TERM
    start_temporary_server "$@"
    create_database
    for script in "$INIT_SCRIPTS"/*; do
        if [ -e "$script" ]; then run_init_script "$script"; fi
    done
    stop_temporary_server
    trap - INT TERM
    unset PGPASSWORD
}

# usage: _main [postgres] [ARG...] | COMMAND [ARG...]
_main() {
    case ${1-} in
        -*) set -- postgres "$@" ;;
    esac
    if [ "${1-}" != postgres ] || only_asks "$@"; then
        exec "$@"
    fi
    load_settings
    prepare_directories
    if [ "$USER_ID" = 0 ]; then
        export HOME=/var/lib/postgresql
        exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
    fi
    forget_unfinished
    if [ -s "$PGDATA/PG_VERSION" ]; then
        say "using the database in $PGDATA; settings for a new one are not applied"
    else
        initialise "$@"
    fi
    exec "$@"
}

_main "$@"
