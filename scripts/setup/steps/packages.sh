# shellcheck shell=bash
# Programs from the distribution: Docker Engine, the image registry, and what builds the base image.

# shellcheck source=scripts/setup/packages.sh
. "$REPOSITORY/scripts/setup/packages.sh"

DOES="install from this system's packages: $(missing_packages | paste -sd ' ')"
WHY="VMs run in Docker Engine, images lie in the registry"
LIMIT_S=600
REMEDY="as root on Debian or Ubuntu this is done for you; elsewhere install Docker Engine 20.10 or newer, an image registry (\`registry\` or \`docker-registry\` on PATH), git, openssl and mmdebstrap, and start Docker"

ready() {
    [ -z "$(missing_packages)" ]
}

perform() {
    if ! is_root || ! is_debian_like; then
        echo "missing: $(missing_packages | paste -sd ' '); they are installed for you only as root on Debian or Ubuntu" >&2
        exit 1
    fi
    local packages
    mapfile -t packages < <(missing_packages)
    export DEBIAN_FRONTEND=noninteractive
    dpkg --configure -a
    apt-get update -q
    without_starting_services apt-get install -y -q --no-install-recommends "${packages[@]}"
    if [ -d /run/systemd/system ] && printf '%s\n' "${packages[@]}" | grep -qx docker-registry; then
        systemctl disable --now docker-registry.service # Each installation runs its own.
    fi
}

# A package that starts its service would take the registry's port, or start an Engine whose output nobody keeps.
without_starting_services() {
    local policy=/usr/sbin/policy-rc.d code=0
    [ ! -e "$policy" ] || { "$@"; return; }
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    "$@" || code=$?
    rm -f "$policy"
    return "$code"
}
