#!/usr/bin/env bash
# The whole suite three times beside four busy loops: a test that asks for a rate, a deadline or
# a count that depends on who gets a CPU fails here. Ends only the loops that it began.
set -u
cd "$(dirname "$0")/.."
loops=()
end() { kill "${loops[@]}" 2>/dev/null; }
trap end EXIT
trap 'exit 130' INT TERM
for _ in 1 2 3 4; do
    # Ends with this script, however that ends.
    setpriv --pdeathsig KILL -- sh -c 'while :; do :; done' &
    loops+=($!)
done
failed=0
for run in 1 2 3; do
    echo "run $run of 3, beside ${#loops[@]} busy loops"
    .venv/bin/pytest -q "$@" || failed=1
done
exit "$failed"
