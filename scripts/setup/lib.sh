# shellcheck shell=bash
# What every step of `make setup` shares: where things lie, how a line is said, how a step is run.
# Sourced by main.sh and perform.sh.

REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
STEPS=${STAGELY_SETUP_STEPS:-$REPOSITORY/scripts/setup/steps}
CACHE=${STAGELY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/stagely}
RECORD=${STAGELY_SETUP:-$CACHE/setup.json}
LOGS=$CACHE/logs
VENV=$REPOSITORY/.venv
VM_REPOSITORY=stagely/local-vm
BASE_IMAGE=debian:trixie-slim
export REPOSITORY CACHE RECORD LOGS VENV VM_REPOSITORY BASE_IMAGE

# say WHO WORDS...: one line with the seconds since the start.
say() {
    local who=$1
    shift
    printf '%4d s  %-12s %s\n' "$((SECONDS))" "$who" "$*"
}

have() {
    command -v "$1" >/dev/null 2>&1
}

is_root() {
    [ "$(id -u)" = 0 ]
}

is_debian_like() {
    have apt-get && have dpkg
}

# Debian's and Go's name of this machine's architecture; empty when it is neither of ours.
architecture() {
    case $(uname -m) in
        x86_64) echo amd64 ;;
        aarch64 | arm64) echo arm64 ;;
    esac
}

# fingerprint PATH...: 12 hex digits that change when a file below changes its name, mode bit or content.
fingerprint() {
    {
        architecture
        (cd "$REPOSITORY" && find "$@" -type f -printf '%p %m\n' | sort && find "$@" -type f -print0 | sort -z | xargs -0 cat)
    } | sha256sum | cut -c1-12
}

vm_image() {
    echo "$VM_REPOSITORY:$(fingerprint deploy/local-vm)"
}

has_image() {
    docker image inspect "$1" >/dev/null 2>&1
}

# has_stamp NAME VALUE: was NAME last done with this very VALUE?
has_stamp() {
    [ "$(cat "$CACHE/stamps/$1" 2>/dev/null)" = "$2" ]
}

put_stamp() {
    mkdir -p "$CACHE/stamps"
    printf '%s\n' "$2" > "$CACHE/stamps/$1"
}

# recorded KEY: a string that the last setup wrote down, or nothing.
recorded() {
    sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p" "$RECORD" 2>/dev/null | head -n 1
}

# run_step NAME: says what and why, does it within its limit unless it is already so, and on failure names the
# step, the log and the remedy. A step is a file that sets DOES, WHY, LIMIT_S, REMEDY and defines `ready` and `perform`.
run_step() {
    local name=$1 started=$SECONDS code ticker
    local DOES WHY LIMIT_S REMEDY
    # shellcheck source=/dev/null
    . "$STEPS/$name.sh"
    if ready; then
        say "$name" "is as it should be"
        return 0
    fi
    if [ -n "${CHECK:-}" ]; then
        say "$name" "would $DOES. Why: $WHY"
        return 0
    fi
    say "$name" "$DOES. Why: $WHY"
    tell_patience "$name" "$LOGS/$name.log" 9>&- &
    ticker=$!
    started_here "$ticker"
    bounded "$LIMIT_S" "$LOGS/$name.log" bash "$REPOSITORY/scripts/setup/perform.sh" "$name" && code=0 || code=$?
    kill "$ticker" 2>/dev/null
    ended_here "$ticker"
    if [ "$code" != 0 ]; then
        tell_failure "$name" "$code" "$LOGS/$name.log" "$REMEDY"
        return 1
    fi
    say "$name" "done in $((SECONDS - started)) s"
}

# bounded SECONDS LOG COMMAND...: runs it without input, its output in LOG, and ended by `stop_all`.
bounded() {
    local limit=$1 log=$2 pid code
    shift 2
    mkdir -p "$LOGS"
    timeout --kill-after=10 "$limit" "$@" > "$log" 2>&1 < /dev/null 9>&- &
    pid=$!
    started_here "$pid"
    wait "$pid" && code=0 || code=$?
    ended_here "$pid"
    return "$code"
}

# started_here PID, ended_here PID: which processes `stop_all` has to end.
started_here() {
    : > "$RUNNING/$1"
}

ended_here() {
    rm -f "$RUNNING/$1"
}

# A line a minute, so that nobody takes a long step for a stuck one. `read` waits here because it leaves no child behind.
tell_patience() {
    local name=$1 log=$2
    until read -r -t 60 _ <> <(:); do
        say "$name" "still at work; its log: $log"
    done
}

tell_failure() {
    local name=$1 code=$2 log=$3 remedy=$4 how="exit code $2"
    [ "$code" != 124 ] || how="not done after its time limit of $LIMIT_S s"
    {
        tail -n 12 "$log" | sed 's/^/        | /'
        say "$name" "FAILED ($how). Log: $log"
        say "$name" "Remedy: $remedy"
    } >&2
}

# side_by_side COMMAND COMMAND...: runs shell functions or words at the same time; fails when one of them does.
side_by_side() {
    local command pids=() failed=0
    for command in "$@"; do
        $command &
        pids+=("$!")
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || failed=1
    done
    return "$failed"
}
