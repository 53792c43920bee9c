#!/usr/bin/env bash
# `make clean`: removes what setup and demo made on this machine, and says each thing. Docker, its plugins and system
# packages stay. ALL=1 also removes the VMs and networks of installations of other clones.
set -uo pipefail
# shellcheck source=scripts/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup/lib.sh"
STOP_LIMIT_S=180

remove_installations() {
    local state
    for state in "$REPOSITORY/.stagely/demo" "$REPOSITORY/.stagely"; do
        if [ -e "$state/installation" ] && [ -x "$VENV/bin/stagely" ]; then
            timeout "$STOP_LIMIT_S" "$VENV/bin/stagely" clean --state "$state" || return 1
        fi
    done
    [ ! -d "$REPOSITORY/.stagely" ] || { say clean "removes .stagely"; rm -rf "$REPOSITORY/.stagely"; }
}

# remove WHAT IDS...: with the Engine's own words when one will not go.
remove() {
    local what=$1
    shift
    [ "$#" -gt 0 ] || return 0
    say clean "removes $# $what: $*"
    case $what in
        containers) docker rm --force --volumes "$@" >/dev/null ;;
        volumes) docker volume rm --force "$@" >/dev/null ;;
        networks) docker network rm "$@" >/dev/null ;;
        images) docker rmi "$@" >/dev/null ;;
    esac
}

labelled() {
    local ids
    mapfile -t ids < <("${@:2}" --filter label=stagely.installation)
    remove "$1" "${ids[@]}"
}

remove_all_installations() {
    labelled containers docker ps --all --format '{{.Names}}'
    labelled volumes docker volume ls --format '{{.Name}}'
    labelled networks docker network ls --format '{{.Name}}'
}

# Only names that setup gives, and of these only images that carry its label: a real `python` image stays.
setup_images() {
    local name
    docker image ls --format '{{.Repository}}:{{.Tag}}' --filter label=stagely.setup "$VM_REPOSITORY"
    while read -r name _; do
        docker image ls --format '{{.Repository}}:{{.Tag}}' --filter label=stagely.stand-in=true "$name"
    done < "$REPOSITORY/deploy/stand-ins/images"
    docker image ls --format '{{.Repository}}:{{.Tag}}' stagely/stand-in
}

remove_images() {
    local images
    mapfile -t images < <(setup_images | grep -v '<none>')
    remove images "${images[@]}" || say clean "images in use stay: VMs of other installations need them (ALL=1 removes those too)"
}

with_engine() {
    [ -z "${ALL:-}" ] || remove_all_installations
    remove_images
    say clean "the Engine's build cache stays, because it is not ours alone: docker builder prune"
}

remove_installations || { say clean "an installation is still running here: stop it first (Ctrl-C in its terminal)" >&2; exit 1; }
if "$REPOSITORY/scripts/dockerd.sh" --check; then
    with_engine
else
    say clean "Docker Engine does not answer: images and networks stay, if there are any"
fi
if [ -d "$CACHE" ]; then
    say clean "removes $CACHE ($(du -sh "$CACHE" | cut -f1))"
    rm -rf "$CACHE"
fi
