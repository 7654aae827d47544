#!/bin/sh
# intrinsics.sh libengine.so: no intrinsic is a function of its own. One that is was used where the CPU's features are not known, in a closure for
# instance, and is called for each vector; prompts of bf16 once took twice their time so.
set -eu
names=$(nm "$1")
# What shows that the names are there.
echo "$names" | grep -q matmul || {
    echo "$1 has no names: it cannot be checked" >&2
    exit 77
}
if echo "$names" | grep -E 'core_arch.*(_mm|arm_shared|neon)'; then
    echo "$1 calls these instead of having them inlined" >&2
    exit 1
fi
