#!/usr/bin/env bash
# `make setup`: makes this machine able to run Stagely. Idempotent, asks nothing, side by side where steps do not need
# one another. CHECK=1 only says what it would do. ONLY="python" does only the named steps.
set -uo pipefail
# shellcheck source=scripts/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
LOCK_LIMIT_S=1800 # Longer than every step's limit after another: a first setup that is already running.

stop_all() {
    trap - INT TERM
    for running in "$RUNNING"/*; do
        [ ! -e "$running" ] || kill -TERM "$(basename "$running")" 2>/dev/null
    done
    wait
    say setup "stopped; what was finished stays, run it again to go on" >&2
    exit 130
}

tools() {
    run_step packages && run_step engine && run_step plugins
}

# The edge does without the compiled reader, so nothing stops for it.
python_and_reader() {
    run_step python || return 1
    run_step reader || say reader "goes on without it: the edge reads heads in Python"
}

images() {
    run_step base-image && side_by_side "run_step vm-image" "run_step stand-ins"
}

everything() {
    run_step host || return 1
    side_by_side python_and_reader tools || return 1
    side_by_side "run_step temporal" images || return 1
    run_step record
}

only() {
    local step
    for step in $ONLY; do
        run_step "$step" || return 1
    done
}

take_lock() {
    mkdir -p "$CACHE"
    exec 9> "$CACHE/setup.lock"
    flock -n 9 && return
    say setup "another setup is at work; waiting for it"
    flock -w "$LOCK_LIMIT_S" 9 || { say setup "it did not end within $LOCK_LIMIT_S s: look for it with \`ps\`" >&2; exit 1; }
}

[ -n "${CHECK:-}" ] || take_lock
RUNNING=$(mktemp -d)
trap 'rm -rf "$RUNNING"' EXIT
trap stop_all INT TERM
if [ -n "${ONLY:-}" ]; then only; else everything; fi
code=$?
if [ "$code" = 0 ] && [ -z "${CHECK:-}" ]; then
    say setup "this machine is ready"
elif [ "$code" != 0 ]; then
    say setup "not finished: see the remedy above, then run \`make setup\` again" >&2
fi
exit "$code"
