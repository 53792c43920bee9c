#!/usr/bin/env bash
# Run pytest in two processes beside each other, for most tests wait: whole systems and workflows, and all the rest.
# Arguments go to both. The output of the first is kept and printed when it has ended; both run to their end.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

systems=(tests/activities tests/e2e tests/faults tests/workflows)
kept=$(mktemp)
first=
trap 'if [ -n "$first" ]; then kill "$first" 2>/dev/null; wait "$first"; fi; cat "$kept"; rm -f "$kept"; exit 130' INT TERM
.venv/bin/pytest "$@" "${systems[@]}" > "$kept" 2>&1 &
first=$!
.venv/bin/pytest "$@" "${systems[@]/#/--ignore=}"
second_code=$?
printf '\n=== %s\n' "${systems[*]}"
wait "$first"
first_code=$?
cat "$kept"
rm -f "$kept"
[ "$first_code" = 0 ] && [ "$second_code" = 0 ]
