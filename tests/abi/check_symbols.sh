#!/bin/sh
# check_symbols.sh libengine.so: the library exports the functions of symbols.txt and nothing else. A name that goes breaks
# programs; one that comes is a promise. Change the list only with the header.
set -eu
export LC_ALL=C
list=$(dirname "$0")/symbols.txt
nm --dynamic --defined-only --format=posix "$1" | cut -d ' ' -f 1 | sort | diff -u --label exported - "$list" || {
    echo "$1 does not export exactly what tests/abi/symbols.txt lists (- too much, + missing)" >&2
    exit 1
}
