#!/bin/sh
# package.sh BUILD: what the users of an installed package meet. BUILD is a built CMake directory. The package is installed
# through DESTDIR and moved; then somebody else's programs find it by CMake and by pkg-config, shared and static, from empty
# directories. Then the same with Debian's deeper library directory, and from the source tree.
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd)
model=$source/examples/models/fourscore
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0

cached() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }
pass() { passed=$((passed + 1)) && echo "ok: $1"; }
# Runs a command silently; shows what it said if it fails.
quiet() { "$@" >"$work/log" 2>&1 || { cat "$work/log"; echo "FAILED: $*"; exit 1; }; }
refused() { # name, expected text, command...
  name=$1 text=$2
  shift 2
  if "$@" >"$work/log" 2>&1; then echo "FAILED: $name was accepted: $*"; exit 1; fi
  grep -q "$text" "$work/log" || { cat "$work/log"; echo "FAILED: $name: no '$text' in the message"; exit 1; }
  pass "$name is refused"
}
configure() { # build folder, prefix, options...
  folder=$1 prefix=$2
  shift 2
  cmake -S "$source/tests/cmake_consumer" -B "$folder" "-DCMAKE_PREFIX_PATH=$prefix" "-DMODEL=$model" "$@"
}
cmake_consumer() { # name, build folder, options of configure
  name=$1 folder=$2
  shift
  quiet configure "$@"
  quiet cmake --build "$folder"
  quiet ctest --test-dir "$folder" --output-on-failure
  pass "$name"
}
linked() { # expected yes|no, program: is libengine.so.0 needed?
  if readelf -d "$2" | grep -q 'NEEDED.*libengine\.so\.0'; then is=yes; else is=no; fi
  [ "$1" = "$is" ] || { echo "FAILED: $2 needs libengine.so.0: $is"; exit 1; }
}
pkg_config_consumer() { # name, directory of engine.pc
  quiet env "PKG_CONFIG_PATH=$2" pkg-config --exact-version="$version" engine
  flags=$(PKG_CONFIG_PATH=$2 pkg-config --cflags --libs engine)
  # shellcheck disable=SC2086 # flags are words
  quiet cc -std=c99 -Wall -Werror "$source/tests/cmake_consumer/main.c" -o "$work/pc" $flags "-Wl,-rpath,$(dirname "$2")"
  linked yes "$work/pc"
  quiet "$work/pc" "$model"
  pass "$1, shared"
  flags=$(PKG_CONFIG_PATH=$2 pkg-config --static --cflags --libs engine)
  # shellcheck disable=SC2086
  quiet cc -std=c99 -static "$source/tests/cmake_consumer/main.c" -o "$work/pc" $flags
  linked no "$work/pc"
  quiet "$work/pc" "$model"
  pass "$1, static"
}

version=$(cached CMAKE_PROJECT_VERSION)
quiet env "DESTDIR=$work/stage" cmake --install "$build"
mv "$work/stage$(cached CMAKE_INSTALL_PREFIX)" "$work/moved"
moved=$work/moved
libdir=$(cached CMAKE_INSTALL_LIBDIR)
[ "$(readlink "$moved/$libdir/libengine.so")" = libengine.so.0 ]
[ "$(readlink "$moved/$libdir/libengine.so.0")" = "libengine.so.$version" ]
if grep -rIl -e "$work" -e "$build" "$moved/$libdir/cmake" "$moved/$libdir/pkgconfig"; then echo "FAILED: a path of the build is installed"; exit 1; fi
pass "installed through DESTDIR and moved"

cmake_consumer "find_package" "$work/default" "$moved"
linked yes "$work/default/consumer_c"
cmake_consumer "find_package, shared" "$work/shared" "$moved" -DENGINE_COMPONENTS=shared
linked yes "$work/shared/consumer_cpp"
cmake_consumer "find_package, static" "$work/static" "$moved" -DENGINE_COMPONENTS=static
linked no "$work/static/consumer_cpp"
refused "version 0.2" "version: $version" configure "$work/newer" "$moved" -DENGINE_WANTED=0.2
refused "an unknown component" 'component "nonsense" is not installed' configure "$work/nonsense" "$moved" -DENGINE_COMPONENTS=nonsense
pkg_config_consumer "pkg-config" "$moved/$libdir/pkgconfig"

arch=$(cc -print-multiarch 2>/dev/null || true)
set -- -DENGINE_BUILD_TESTS=OFF -DENGINE_BUILD_EXAMPLES=OFF "-DENGINE_CARGO_TARGET_DIR=$(cached ENGINE_CARGO_TARGET_DIR)" \
  "-DENGINE_BLAS=$(cached ENGINE_BLAS)"
if [ -n "$arch" ]; then
  quiet cmake -S "$source" -B "$work/multiarch" "-DCMAKE_INSTALL_PREFIX=$work/usr" "-DCMAKE_INSTALL_LIBDIR=lib/$arch" "$@"
  quiet cmake --build "$work/multiarch"
  quiet cmake --install "$work/multiarch"
  cmake_consumer "find_package in lib/$arch" "$work/multiarch-consumer" "$work/usr"
  pkg_config_consumer "pkg-config in lib/$arch" "$work/usr/lib/$arch/pkgconfig"
fi

cmake_consumer "add_subdirectory" "$work/tree" "" "-DENGINE_SOURCE=$source" "$@"
linked yes "$work/tree/consumer_c"
echo "package: $passed checks passed"
