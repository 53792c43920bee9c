# shellcheck shell=bash
# Where no public registry is reachable: images under the usual names made of Debian's packages, in the host's Engine
# and in the mirror that VMs use, so that ordinary Dockerfiles and Compose files work.

DOES="make stand-ins for public images where the public registry is not reachable: $(awk '{print $1 ":" $2}' "$REPOSITORY/deploy/stand-ins/images" | paste -sd ' ')"
WHY="ordinary Dockerfiles begin with them"
LIMIT_S=900
REMEDY="read the log: usually a Debian mirror that containers do not reach (look at DNS and proxies of Docker Engine) or a full disk"
IMAGES=$REPOSITORY/deploy/stand-ins/images

# shellcheck source=scripts/setup/mirror.sh
. "$REPOSITORY/scripts/setup/mirror.sh"
# shellcheck source=scripts/setup/packages.sh
. "$REPOSITORY/scripts/setup/packages.sh"

ready() {
    [ "$(mirror_kind)" = pull-through ] && return
    has_stamp stand-ins "$(fingerprint deploy/stand-ins scripts/setup/publish.py)" && [ -d "$CACHE/mirror/docker" ] && all_named
}

perform() {
    local name tags
    while read -r name tags; do
        [ "$name" = debian ] || build "$name"
        name_locally "$name" "$tags"
    done < "$IMAGES"
    "$VENV/bin/python" "$REPOSITORY/scripts/setup/publish.py" --registry "$(registry_program)" --storage "$CACHE/mirror" --images "$IMAGES"
    put_stamp stand-ins "$(fingerprint deploy/stand-ins scripts/setup/publish.py)"
}

build() {
    docker buildx build --builder default --progress plain --network host --label stagely.stand-in=true \
        --tag "stagely/stand-in:$1" "$REPOSITORY/deploy/stand-ins/$1"
}

# name_locally NAME TAGS: gives the Engine's image its usual names, except where a real image has that name already.
name_locally() {
    local name=$1 tag
    [ "$name" != debian ] || docker tag "$BASE_IMAGE" stagely/stand-in:debian
    for tag in $2; do
        if ! has_image "$name:$tag" || is_stand_in "$name:$tag"; then
            docker tag "stagely/stand-in:$name" "$name:$tag"
        fi
    done
}

is_stand_in() {
    [ "$(docker image inspect --format '{{index .Config.Labels "stagely.stand-in"}}' "$1" 2>/dev/null)" = true ]
}

all_named() {
    local name tags tag
    while read -r name tags; do
        for tag in $tags; do
            has_image "$name:$tag" || return 1
        done
    done < "$IMAGES"
}
