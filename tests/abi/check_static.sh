#!/bin/sh
# check_static.sh libengine.a: the static library's global names are those of symbols.txt too, so that nothing of ours can
# clash with a name of the program.
set -eu
export LC_ALL=C
list=$(dirname "$0")/symbols.txt
nm --extern-only --defined-only --format=posix "$1" | sed -n 's/^\([^ ]*\) [A-Za-z] .*/\1/p' | sort | diff -u --label global - "$list" || {
    echo "$1 does not define exactly the global names that tests/abi/symbols.txt lists (- too much, + missing)" >&2
    exit 1
}
