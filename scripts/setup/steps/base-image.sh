# shellcheck shell=bash
# debian:trixie-slim, of which the VM image and all stand-ins are made: pulled where the public registry is reachable,
# else made here from Debian's packages.

DOES="get the base image $BASE_IMAGE (from the public registry if it is reachable, else from Debian's packages)"
WHY="the VM image is built on it"
LIMIT_S=600
REMEDY="see that either the public image registry or a Debian mirror is reachable, and that mmdebstrap is installed (as root)"
PULL_LIMIT_S=240

# shellcheck source=scripts/setup/mirror.sh
. "$REPOSITORY/scripts/setup/mirror.sh"

ready() {
    has_image "$BASE_IMAGE" && [ -n "$(mirror_kind)" ]
}

perform() {
    choose_mirror_kind
    has_image "$BASE_IMAGE" && return
    if [ "$(mirror_kind)" = pull-through ]; then
        timeout "$PULL_LIMIT_S" docker pull -q "$BASE_IMAGE"
    else
        make_base
    fi
}

make_base() {
    # shellcheck source=scripts/setup/debian.sh
    . "$REPOSITORY/scripts/setup/debian.sh"
    local mirror exclude=() path
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || { echo "no Debian mirror among this system's package sources, and no public image registry" >&2; exit 1; }
    for path in man doc locale info lintian; do
        exclude+=("--dpkgopt=path-exclude=/usr/share/$path/*")
    done
    mmdebstrap --variant=minbase "${exclude[@]}" trixie - "$mirror" |
        docker import --change 'CMD ["bash"]' --change 'LABEL stagely.stand-in=true' - "$BASE_IMAGE"
}
