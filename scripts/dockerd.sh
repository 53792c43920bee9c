#!/usr/bin/env bash
# dockerd.sh [--check]: Docker Engine answers afterwards; started if it did not run. `--check` only looks.
# An Engine started here outlives the shell that started it; its output is in the cache.
set -euo pipefail
# shellcheck source=scripts/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup/lib.sh"
START_LIMIT_S=40 # 1 to 2 s usually; longer after a crash, while it restores containers.
CONTAINERS_WEIGHT=20480

answers() {
    have docker && timeout 10 docker version >/dev/null 2>&1
}

start() {
    is_root || { echo "Docker Engine does not answer, and only root may start it. Start it, or join the group docker." >&2; exit 1; }
    have dockerd || { echo "dockerd is not installed. Run: make setup" >&2; exit 1; }
    if [ -d /run/systemd/system ]; then
        systemctl start docker.service
        return
    fi
    mkdir -p "$LOGS"
    # A pid file of an Engine that was killed, or of before a reboot, names a process that is not one.
    if [ -e /var/run/docker.pid ] && ! grep -qs dockerd "/proc/$(cat /var/run/docker.pid)/cmdline"; then
        rm -f /var/run/docker.pid
    fi
    setsid nohup dockerd --log-level warn >> "$LOGS/dockerd.log" 2>&1 < /dev/null 9>&- &
}

wait_for_answer() {
    local deadline=$((SECONDS + START_LIMIT_S))
    until answers; do
        if ((SECONDS >= deadline)); then
            echo "Docker Engine did not answer within $START_LIMIT_S s. Its last words ($LOGS/dockerd.log):" >&2
            tail -n 5 "$LOGS/dockerd.log" >&2
            exit 1
        fi
        sleep 0.2
    done
}

# On cgroup v1 all containers together weigh as much as one process outside: VMs starve beside a busy host.
weigh_containers() {
    local group=/sys/fs/cgroup/cpu/docker
    is_root && [ -w /sys/fs/cgroup/cpu ] || return 0
    mkdir -p "$group" 2>/dev/null || return 0 # Read-only here: VMs are slower on a busy host, and still work.
    echo "$CONTAINERS_WEIGHT" > "$group/cpu.shares"
}

if [ "${1:-}" = --check ]; then
    answers || exit 1
    weigh_containers
    exit 0
fi
answers || { start; wait_for_answer; }
weigh_containers
