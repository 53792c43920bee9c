# shellcheck shell=bash
# Is this machine one on which Stagely can run at all? Checks only; changes nothing.

DOES="check system, architecture, memory and disk"
WHY="a machine that cannot run it should say so before anything is installed"
LIMIT_S=30
REMEDY="use a Linux machine (amd64 or arm64) with what the line above asks for; a virtual machine with Linux will do"
MEMORY_MB=3500 # Three VMs at once peak at 1.3 GiB, the control plane and Temporal take about 1 GiB.
DISK_MB=6000   # VM image and stand-ins 1.2 GB, .venv 0.5 GB, Temporal 0.2 GB (its build 2 GB once), and room to work.

ready() {
    perform >/dev/null 2>&1
}

perform() {
    [ "$(uname -s)" = Linux ] || refuse "Stagely's local machines need Linux; this is $(uname -s)"
    [ -n "$(architecture)" ] || refuse "only amd64 and arm64 are supported; this machine is $(uname -m)"
    have python3 || refuse "python3 (3.11 or newer) is missing"
    enough "memory" "$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)" "$MEMORY_MB"
    # Only a first setup needs all of the room.
    [ -e "$RECORD" ] || enough "free disk space in $HOME" "$(free_disk_mb "$HOME")" "$DISK_MB"
}

free_disk_mb() {
    df -Pm "$1" | awk 'NR == 2 {print $4}'
}

enough() {
    [ "$2" -ge "$3" ] || refuse "$1 is $2 MB; $3 MB are needed"
}

refuse() {
    echo "$1" >&2
    exit 1
}
