#!/bin/sh
# examples.sh generate|fourscore PROGRAM: the program's exact output on the demo model, and its messages.
set -eu
kind=$1
program=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
cd "$(dirname "$0")/.."
model=examples/models/fourscore
tokens=$model/four.tokens.bin
# From transformers, in f32: the sixth logit is never nearer than 0.006 to the fifth, nor any of the five to the next.
steps=tests/examples/fourscore.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { echo "FAILED: $*"; exit 1; }
same() { diff "$1" "$2" || fail "$3: the output is not $1"; }
run() { # expected exit status, arguments...: leaves $work/out and $work/err
  want=$1
  shift
  status=0
  "$program" "$@" >"$work/out" 2>"$work/err" || status=$?
  [ "$status" = "$want" ] || { cat "$work/err"; fail "$program $*: status $status, not $want"; }
}
says() { grep -Eq -- "$1" "$work/err" || { cat "$work/err"; fail "stderr has no line like: $1"; }; }
silent() { [ ! -s "$work/out" ] || fail "standard output is not empty"; }

generate() {
  prompt="Four score and seven years ago"
  { cat $model/expected.txt && echo; } >"$work/all"
  run 0 $model "$prompt" 400
  same "$work/all" "$work/out" "the whole text"
  says '^model: [a-z0-9]+, [0-9.]+ M parameters, [0-9.]+ MB, [0-9]+ layers, [0-9]+ wide; [0-9]+ threads, [a-z0-9]+$'
  says '^prefill: [0-9]+ tokens, [0-9.]+ tokens/s$'
  says '^decode: [0-9]+ tokens, [0-9.]+ tokens/s$'
  run 0 $model "$prompt" 400 1
  same "$work/all" "$work/out" "the whole text on 1 thread"
  run 0 $model "$prompt" 4
  grep -qx "$prompt our fathers b" "$work/out" || fail "4 tokens: $(cat "$work/out")"
  says '^decode: 4 tokens, '
  run 2
  silent
  says '^usage: generate MODEL PROMPT \[N_TOKENS \[THREADS\]\]$'
  for bad in 0 -1 1x ''; do run 2 $model "$prompt" "$bad"; done
  run 1 /no/such/model "$prompt"
  silent
  says '^generate: .*/no/such/model'
}

fourscore() {
  run 0 $model $tokens
  same $steps "$work/out" "the token file"
  [ "$(grep -Ec '^[0-9]+: token [0-9]+ \("[^"]*"\) Top 5 next tokens: ([0-9]+ \("[^"]*"\) ){5}$' "$work/out")" = 20 ] || fail "not 20 lines of the format"
  for what in 'Time to read tokens' 'Time to load model' 'Time to load detokenizer' 'Time for inference \(20 iterations\)'; do
    says "^$what: [0-9]+ ms\$"
  done
  says '^Time per iteration: [0-9.]+ ms$'
  run 0 $model <$tokens
  same $steps "$work/out" "tokens from standard input"
  run 2
  says '^usage: fourscore MODEL_DIR \[TOKENS.bin\]$'
  run 1 $model </dev/null
  says 'no tokens'
  printf 'abcde' >"$work/five"
  run 1 $model "$work/five"
  says '5 bytes'
  run 1 $model /no/such/tokens
  says '/no/such/tokens'
  run 1 /no/such/model $tokens
  says '/no/such/model'
}

$kind
echo "$kind: $program says what it should"
