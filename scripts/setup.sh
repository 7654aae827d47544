#!/bin/sh
# setup.sh build|test: installs by apt-get what that needs and is not there. Says nothing if all is there.
set -u
missing='' # packages that we cannot do without
wanted=''  # packages whose lack only leaves something out

has() { command -v "$1" >/dev/null 2>&1; }
need() { has "$1" || missing="$missing $2"; }
headers() { echo '#include <stdio.h>' | cc -E - >/dev/null 2>&1; }
# What build.rs looks for: a static single-threaded OpenBLAS.
openblas() {
  [ "$(uname -m)" = x86_64 ] || return 0
  for archive in "${ENGINE_OPENBLAS:-}" /usr/lib/x86_64-linux-gnu/openblas-serial/libopenblas.a /usr/lib64/libopenblas.a /usr/lib/libopenblas.a; do
    if [ -e "$archive" ]; then return 0; fi
  done
  return 1
}

look() {
  missing='' wanted=''
  need cc gcc
  need c++ g++
  headers || missing="$missing libc6-dev"
  need cmake cmake
  need pkg-config pkg-config
  openblas || wanted="$wanted libopenblas-serial-dev"
  if [ "$1" = test ] && ! has valgrind; then wanted="$wanted valgrind"; fi
}

if ! has cargo; then
  echo "setup: cargo is missing: install Rust from https://rustup.rs" >&2
  exit 1
fi
if [ "$1" = test ]; then
  for tool in fmt clippy; do
    cargo "$tool" --version >/dev/null 2>&1 && continue
    component=$([ $tool = fmt ] && echo rustfmt || echo clippy)
    rustup component add "$component" || { echo "setup: cargo $tool is missing: rustup component add $component" >&2; exit 1; }
  done
fi

look "$1"
if [ -n "$missing$wanted" ]; then
  if [ "$(id -u)" = 0 ]; then as_root=''; else as_root='sudo -n'; fi
  if has apt-get && $as_root true 2>/dev/null; then
    echo "setup: installing$missing$wanted"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # words
    $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends $missing $wanted >/dev/null
    look "$1"
  fi
  for package in $wanted; do
    case $package in
      libopenblas*) echo "setup: $package cannot be installed: building without OpenBLAS, slower for f32 prompts" ;;
      valgrind) echo "setup: valgrind cannot be installed: the memory checks are left out" ;;
    esac
  done
  if [ -n "$missing" ]; then
    echo "setup: please install:$missing" >&2
    exit 1
  fi
fi
