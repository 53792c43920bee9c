# shellcheck shell=bash
# Which programs Stagely needs from the system, by the Debian packages that have them.

missing_packages() {
    lacks dockerd docker.io
    lacks iptables iptables
    lacks git git
    lacks openssl openssl
    [ -n "$(registry_program)" ] || echo docker-registry
    # Only needed where there is no base image yet and no public registry to take it from; small, so not asked twice.
    lacks mmdebstrap mmdebstrap
}

# lacks PROGRAM PACKAGE: the package's name, if the program is missing. An Engine that already answers counts as one.
lacks() {
    have "$1" && return
    [ "$1" = dockerd ] || [ "$1" = iptables ] && engine_answers && return
    [ -x "/usr/sbin/$1" ] || echo "$2"
}

engine_answers() {
    have docker && timeout 10 docker version >/dev/null 2>&1
}

registry_program() {
    command -v docker-registry || command -v registry || true
}
