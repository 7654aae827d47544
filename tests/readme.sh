#!/bin/sh
# readme.sh CC CXX LIBDIR: the programs in README.md compile without a warning, and run on the demo model.
set -eu
cc=$1 cxx=$2 libdir=$3
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0

block() { # fence language, file: the one block of that language in README.md
  awk -v fence="\`\`\`$1" '$0 == fence { inside = 1; next } $0 == "```" { inside = 0 } inside' README.md >"$2"
  [ -s "$2" ] || { echo "README.md has no $1 block"; exit 1; }
}
check() { # compiler, language, standard
  block "$2" "$work/readme.$2"
  "$1" "-std=$3" -Wall -Wextra -Wpedantic -Werror -Iinclude -Ibindings/cpp "$work/readme.$2" -o "$work/readme" \
    "-L$libdir" -lengine "-Wl,-rpath,$libdir"
  "$work/readme" examples/models/fourscore >"$work/out"
  grep -q '^Four score and seven years ago our fathers' "$work/out" || { cat "$work/out"; echo "the $2 program of README.md says something else"; exit 1; }
  n=$((n + 1))
}
check "$cc" c c99
check "$cxx" cpp c++17
echo "README.md: $n programs compiled and ran"
