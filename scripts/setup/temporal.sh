# shellcheck shell=bash
# Where Temporal's program is: on PATH, or in the cache; nothing when there is none that runs.

temporal_program() {
    for program in "$(command -v temporal || true)" "$CACHE/bin/temporal"; do
        if [ -n "$program" ] && "$program" --version >/dev/null 2>&1; then
            echo "$program"
            return
        fi
    done
}
