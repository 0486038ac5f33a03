#!/usr/bin/env bash
# Runs the tests of what is compiled (the scheduler, the pass of the analysis) without that, in a copy
# of the sources: an extension that lies beside its source would always be taken first.
set -euo pipefail
cd "$(dirname "$0")/.."

copy=build/interpreted
python=$PWD/.venv/bin/python
rm -rf "$copy"
mkdir -p "$copy"
# A file that git still lists may be deleted already.
git ls-files -z --cached --others --exclude-standard -- \
    pyproject.toml reference_runtime tracer analysis pretake tests | while IFS= read -r -d '' file; do
    [ ! -f "$file" ] || cp --parents "$file" "$copy"
done
# The C parts give up the GIL or run in a signal handler: Python cannot stand in for them.
cp --parents reference_runtime/_[a-z]*.so "$copy"
cd "$copy"
PRETAKE_NO_COMPILE=1 "$python" -m pytest tests/unit/runtime tests/unit/analysis/test_budget.py \
    tests/unit/analysis/test_budget_changes.py tests/unit/analysis/test_budget_model.py \
    tests/unit/analysis/test_budget_stops.py tests/unit/analysis/test_episodes.py \
    tests/unit/analysis/test_moves.py tests/unit/analysis/test_whose_release.py \
    tests/unit/analysis/test_windows.py "$@"
