#!/bin/sh
# headers.sh CC CXX: each header compiles alone and twice, without a warning, in every language it promises.
set -eu
cc=$1 cxx=$2
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

check() { # compiler language standard header
  for times in 1 2; do
    i=0
    : >"$work/h.c"
    while [ $i -lt $times ]; do
      echo "#include \"$4\"" >>"$work/h.c"
      i=$((i + 1))
    done
    echo "$1 -std=$3: $4, $times times"
    "$1" -x "$2" "-std=$3" -Wall -Wextra -Wpedantic -Wshadow -Werror -Iinclude -Ibindings/cpp -fsyntax-only "$work/h.c"
  done
}

compilers="$cc:$cxx"
if command -v clang >/dev/null && command -v clang++ >/dev/null; then compilers="$compilers clang:clang++"; fi
for pair in $compilers; do
  for std in c99 c11 c17; do check "${pair%%:*}" c $std engine.h; done
  for std in c++11 c++17 c++20; do check "${pair##*:}" c++ $std engine.h; done
  for std in c++17 c++20; do check "${pair##*:}" c++ $std engine.hpp; done
done
