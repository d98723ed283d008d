#!/bin/sh
# Shell, because it runs inside images of two kinds (Alpine's with musl, Debian's with glibc), before
# the server, with nothing else to rely on. It is the entrypoint of PostgreSQL and of Redis:
#
#     flavour-guard.sh DATA_DIR NEXT [ARG...]
#
# It notes in DATA_DIR/.flavour which C library the data was made with, refuses to start on data of
# the other kind, and then becomes NEXT. Why: text sorts by the rules of the C library, and an index
# is sorted text. Under the other library PostgreSQL would search its indexes in the wrong order,
# miss rows and admit duplicates without a word.
set -eu

# usage: refuse LINE...
refuse() {
    printf 'flavour-guard: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
    exit 1
}

# usage: running_flavour - musl or glibc: which loader is mapped into this very shell?
running_flavour() {
    while read -r mapped; do
        case $mapped in
            */ld-musl-*) echo musl && return ;;
            */libc.so.6 | */libc-2.*.so) echo glibc && return ;;
        esac
    done </proc/self/maps
    refuse "this image uses neither musl nor glibc, so its order of text is unknown." \
        "Use an image that does: the ones that .env.example names, or IMAGE_SOURCE=distro."
}

# usage: other_source FLAVOUR - the IMAGE_SOURCE whose images have it
other_source() {
    case $1 in
        musl) echo registry ;;
        *) echo distro ;;
    esac
}

# usage: require_access DIRECTORY
require_access() {
    [ -d "$1" ] || refuse "there is no directory $1." "Mount the data volume there."
    { [ -r "$1" ] && [ -w "$1" ] && [ -x "$1" ]; } ||
        refuse "cannot read and write $1: it belongs to $(stat -c '%u:%g' "$1" 2>/dev/null || echo somebody else), mode $(stat -c '%a' "$1" 2>/dev/null || echo unknown), and this runs as $(id -u):$(id -g)." \
            "Give it to that user once (\`docker volume ls\` and \`docker image ls\` know the names):" \
            "  docker run --rm --user 0 --entrypoint chown -v VOLUME:$1 IMAGE -R $(id -u):$(id -g) $1"
}

# usage: is_empty DIRECTORY - but for what this script and a file system put there
is_empty() {
    for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        case ${entry##*/} in
            .flavour | .flavour.new | lost+found) ;;
            *) if [ -e "$entry" ] || [ -L "$entry" ]; then return 1; fi ;;
        esac
    done
}

# usage: note FLAVOUR MARK - whole or not at all
note() {
    echo "$1" >"$2.new"
    mv "$2.new" "$2"
}

# usage: refuse_unmarked DIRECTORY HERE SERVICE
refuse_unmarked() {
    if [ -e "$1/PG_VERSION" ] && [ "${PGDATA:-$1}" != "$1" ]; then
        refuse "a database lies in $1 itself, but this stack keeps it in $PGDATA." \
            "It comes from elsewhere. Restore a backup of it instead, or move its files there first."
    fi
    refuse "there is data in $1, and no note of which kind of image made it." \
        "This image is of the kind $2. If that kind made the data, say so once:" \
        "  docker compose run --rm --no-deps --entrypoint sh $3 -c 'echo $2 >$1/.flavour'" \
        "If the other kind made it (Alpine images: musl; Debian's: glibc), or nobody knows: back it up" \
        "with the images that made it, \`cargo xtask down --volumes\` (with \`--prod\` in production), and" \
        "restore the backup here."
}

# usage: refuse_other HERE MADE_WITH DIRECTORY
refuse_other() {
    refuse "the data in $3 was made with $2, and this image runs on $1." \
        "The two sort text differently, so PostgreSQL's indexes would be wrong without a word, and" \
        "the releases differ, so Redis may not read its files. Nothing was touched. Either" \
        "  go back to the images that made it: set IMAGE_SOURCE=$(other_source "$2") in the environment" \
        "  file (.env, .env.production); or" \
        "  move the data: go back, take a backup, \`cargo xtask down --volumes\` (with \`--prod\` in production)," \
        "  set IMAGE_SOURCE=$(other_source "$1"), and restore the backup."
}

# usage: service_of NEXT [COMMAND [ARG...]] - the Compose service whose server is started
service_of() {
    case ${2-} in
        redis*) echo redis ;;
        *) echo postgres ;;
    esac
}

# usage: _main DATA_DIR NEXT [ARG...]
_main() {
    [ $# -ge 2 ] || refuse "usage: flavour-guard.sh DATA_DIR NEXT [ARG...]"
    directory=$1
    mark=$1/.flavour
    shift
    require_access "$directory"
    here=$(running_flavour) || exit 1
    made_with=
    [ ! -e "$mark" ] || read -r made_with <"$mark" || :
    case $made_with in
        "$here") ;;
        musl | glibc) refuse_other "$here" "$made_with" "$directory" ;;
        '')
            is_empty "$directory" || refuse_unmarked "$directory" "$here" "$(service_of "$@")"
            note "$here" "$mark"
            ;;
        *) refuse "$mark says \`$made_with\`. It holds one word: musl or glibc." ;;
    esac
    exec "$@"
}

_main "$@"
