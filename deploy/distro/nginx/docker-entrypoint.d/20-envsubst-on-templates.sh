#!/bin/sh
# Shell, because envsubst is a program for shells: renders the templates before nginx reads its
# configuration.
set -eu

TEMPLATES=${NGINX_ENVSUBST_TEMPLATE_DIR:-/etc/nginx/templates}
SUFFIX=${NGINX_ENVSUBST_TEMPLATE_SUFFIX:-.template}
OUTPUT=${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}

# usage: known_variables - those of the environment that match the filter, as envsubst wants them.
# nginx has variables of its own ($host, $uri), which must stay as they are.
known_variables() {
    awk 'BEGIN {
        for (name in ENVIRON)
            if (name ~ ENVIRON["NGINX_ENVSUBST_FILTER"]) printf "${%s} ", name
    }'
}

# usage: render TEMPLATE VARIABLES - written beside its place and moved, so that a reload never reads half a file
render() {
    rendered=$OUTPUT/${1#"$TEMPLATES"/}
    rendered=${rendered%"$SUFFIX"}
    [ -d "${rendered%/*}" ] || mkdir -p "${rendered%/*}"
    # Under a name of its own: a reload by hand may render at the same time.
    envsubst "$2" <"$1" | resolve-upstreams >"$rendered.rendering.$$"
    mv "$rendered.rendering.$$" "$rendered"
}

# usage: _main
_main() {
    [ -d "$TEMPLATES" ] || return 0
    IFS='
'
    # shellcheck disable=SC2046 # one word per line is what is wanted
    set -- $(find "$TEMPLATES" -follow -type f -name "*$SUFFIX" | sort)
    unset IFS
    [ $# -gt 0 ] || return 0
    if ! [ -w "$OUTPUT" ]; then
        echo "error: there are templates in $TEMPLATES, but uid $(id -u) cannot write to $OUTPUT." >&2
        echo "  Point NGINX_ENVSUBST_OUTPUT_DIR at a folder it can write, such as /tmp." >&2
        exit 1
    fi
    variables=$(known_variables)
    for template in "$@"; do
        render "$template" "$variables"
    done
}

_main
