# shellcheck shell=bash
# Compose v2 and buildx for the host's docker command.

DOES="install Compose v2 and buildx for the docker command"
WHY="Compose reads the user's file as Docker does, buildx makes the VM image"
LIMIT_S=300
REMEDY="install the packages docker-compose (2.x) and docker-buildx, or the plugins of your Docker distribution; \`docker compose version\` and \`docker buildx version\` must answer"
PLUGINS=/usr/local/lib/docker/cli-plugins
# bookworm has neither; Debian's next release has both, as static programs that run anywhere.
PLUGIN_SUITE=trixie

ready() {
    docker compose version --short 2>/dev/null | grep -q '^v\?[2-9]' && docker buildx version >/dev/null 2>&1
}

perform() {
    is_debian_like || { echo "only Debian and Ubuntu can be helped" >&2; exit 1; }
    from_own_release || true
    ready || from_debian
    ready
}

from_own_release() {
    local packages=()
    is_root || return 0
    ! offers docker-buildx '' || packages+=(docker-buildx)
    if offers docker-compose-v2 ''; then packages+=(docker-compose-v2); elif offers docker-compose 2; then packages+=(docker-compose); fi
    [ "${#packages[@]}" = 0 ] || DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}"
}

# offers PACKAGE PREFIX: does this release have it, in a version that begins like that?
offers() {
    apt-cache policy "$1" 2>/dev/null | grep -q "Candidate: $2[0-9]"
}

# The packages are fetched through apt (signatures checked) with a list and a state of their own, so that this system's
# package sources stay as they are; only the two programs are taken out of them.
from_debian() {
    local work
    work=$(mktemp -d)
    # shellcheck source=scripts/setup/debian.sh
    . "$REPOSITORY/scripts/setup/debian.sh"
    separate_apt "$work" "$PLUGIN_SUITE"
    (cd "$work" && apt-get download -q docker-compose docker-buildx)
    for archive in "$work"/*.deb; do
        dpkg-deb --extract "$archive" "$work/tree"
    done
    is_root || PLUGINS=$HOME/.docker/cli-plugins
    install -D -m 755 -t "$PLUGINS" "$work"/tree/usr/libexec/docker/cli-plugins/docker-*
    rm -rf "$work"
}
