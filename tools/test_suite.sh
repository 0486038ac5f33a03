#!/usr/bin/env bash
# The whole suite. Up to three tests that fail are run once more, by themselves: a host that takes a
# CPU away at the wrong instant spoils one capture, and a fault of ours fails again. Both runs are
# printed. test_loaded.sh gives no second chance.
set -u
cd "$(dirname "$0")/.."
most=3
cache=$PWD/build/suite
rm -rf "$cache"
.venv/bin/pytest -o cache_dir="$cache" "$@"
status=$?
[ "$status" = 1 ] || exit "$status"
failed=$(grep -c '::' "$cache/v/cache/lastfailed")
if [ "$failed" -gt "$most" ]; then
    echo "$failed tests failed: too many for a second run"
    exit 1
fi
echo "$failed failed, and are run once more by themselves"
exec .venv/bin/pytest -o cache_dir="$cache" --last-failed --last-failed-no-failures none "$@"
