#!/usr/bin/env bash
# One pull request of examples/guestbook done by hand: the physical steps of a preview and no control plane.
#
#   bare.sh open SHA    two fresh builders, a preview VM, clone, build, push by digest, pull, up
#   bare.sh push SHA    two fresh builders; the preview is there already
#   bare.sh close       the preview goes
#
# It is tuned with all that Stagely does too: the same VM image, registry and mirror, zstd layers pushed by digest through
# the remote builder, the registry cache, the preview booting and pulling beside the builds, quick start probes.
# stdout: "address IP" as soon as the preview has one, and "phase NAME SECONDS" after each step.
set -euo pipefail

: "${BARE_NAME:?}"       # prefix of the VMs' names, a label of theirs, and of the images' repositories
: "${BARE_IMAGE:?}"      # image of local VMs
: "${BARE_NETWORK:?}"    # Docker network of the installation that the registry belongs to
: "${BARE_REGISTRY:?}"   # host:port as VMs reach it
: "${BARE_MIRROR:?}"
: "${BARE_REPO:?}"       # URL of the repository as VMs reach it
: "${BARE_TOKEN:?}"      # password of the repository
: "${BARE_FOLDER:?}"     # a private folder that stays until `close`

LIMIT_S=240  # Every step within a VM: a loaded machine was seen to need 30 s.

now() { date +%s.%N; }
phase() { awk -v name="$1" -v a="$2" -v b="$(now)" 'BEGIN { printf "phase %s %.3f\n", name, b - a }'; }

vm_create() {  # vm_create NAME: returns once the container runs; its boot goes on
    local seed=$BARE_FOLDER/$1
    mkdir -p "$seed"
    printf '#cloud-config\n{}\n' > "$seed/user-data"
    printf 'instance-id: %s\nlocal-hostname: %s\n' "$1" "$1" > "$seed/meta-data"
    cat > "$seed/daemon.json" <<JSON
{"features": {"containerd-snapshotter": true},
 "insecure-registries": ["$BARE_REGISTRY", "$BARE_MIRROR"], "registry-mirrors": ["http://$BARE_MIRROR"]}
JSON
    docker run --detach --name "$1" --hostname "$1" --network "$BARE_NETWORK" --label "stagely.bench=$BARE_NAME" \
        --cap-add ALL --cap-drop SYS_RESOURCE --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
        --cgroupns private --device-cgroup-rule 'a *:* rwm' --memory 4g \
        --tmpfs /run:exec --tmpfs /run/lock --tmpfs /tmp:exec \
        --tmpfs /var/lib/docker:exec,mode=710 --tmpfs /var/lib/containerd:exec,mode=711 \
        --volume "$seed:/var/lib/cloud/seed/nocloud:ro" "$BARE_IMAGE" > /dev/null
}

vm_destroy() { docker rm --force --volumes "$1" > /dev/null; }

vm_do() {  # vm_do NAME [VARIABLE=VALUE...] < script
    local vm=$1 variables=()
    shift
    for pair in "$@"; do variables+=(--env "$pair"); done
    timeout "$LIMIT_S" docker exec --interactive --env HOME=/root "${variables[@]}" "$vm" bash -seuo pipefail
}

# What every script in a VM begins with: the Engine's socket, and the repository at one commit.
prologue() {
    cat <<'SCRIPT'
phase() { awk -v name="$1" -v a="$2" -v b="$(date +%s.%N)" 'BEGIN { printf "phase %s %.3f\n", name, b - a }'; }
until [ -S /run/docker.sock ] && [ -S /run/stagely-buildkit.sock ]; do sleep 0.02; done
[ -z "${BEGAN:-}" ] || phase "boot $WHAT" "$BEGAN"
checkout() {
    local began=$(date +%s.%N)
    [ -d /srv/tree/.git ] || git init --quiet --template= /srv/tree
    cd /srv/tree
    git -c http.extraHeader="Authorization: Basic $(printf 'x-access-token:%s' "$TOKEN" | base64 -w0)" \
        fetch --quiet --depth=1 --no-tags "$REPO" "$SHA"
    git -c advice.detachedHead=false checkout --quiet --force --detach FETCH_HEAD
    phase "clone $WHAT" "$began"
}
SCRIPT
}

build() {  # build TARGET SHA: a fresh VM builds and pushes; its digest is left in the folder, and it goes
    local vm=$BARE_NAME-$1 began
    began=$(now)
    vm_create "$vm"
    { prologue; cat <<'SCRIPT'
checkout
began=$(date +%s.%N)
docker buildx build --builder vm --progress quiet --provenance=false --metadata-file /tmp/metadata \
    --cache-from "type=registry,ref=$CACHE" \
    --cache-to "type=registry,ref=$CACHE,mode=max,compression=zstd,oci-mediatypes=true" \
    --output "type=image,name=$IMAGE,push=true,push-by-digest=true,store=false,oci-mediatypes=true,compression=zstd" \
    "/srv/tree/$WHAT" > /dev/null
phase "build $WHAT" "$began"
echo "digest $(sed -n 's/.*"containerimage.digest": "\(sha256:[0-9a-f]*\)".*/\1/p' /tmp/metadata)"
SCRIPT
    } | vm_do "$vm" BEGAN="$began" WHAT="$1" SHA="$2" TOKEN="$BARE_TOKEN" REPO="$BARE_REPO" \
            IMAGE="$BARE_REGISTRY/$BARE_NAME/pr/$1" CACHE="$BARE_REGISTRY/$BARE_NAME/cache/$1:amd64" > "$BARE_FOLDER/$1.out"
    vm_destroy "$vm" &
    grep '^phase' "$BARE_FOLDER/$1.out"
}

preview_boot() {  # boots, says its address, and pulls beside the builds what no build makes
    local began vm=$BARE_NAME-preview
    began=$(now)
    vm_create "$vm"
    docker inspect --format '{{range .NetworkSettings.Networks}}address {{.IPAddress}}{{end}}' "$vm"
    { prologue; echo 'docker pull --quiet redis:8 > /dev/null'; } | vm_do "$vm" BEGAN="$began" WHAT=preview
    phase "prepare preview" "$began"
}

deploy() {  # deploy SHA
    local web api
    web=$(sed -n 's/^digest //p' "$BARE_FOLDER/web.out")
    api=$(sed -n 's/^digest //p' "$BARE_FOLDER/api.out")
    { prologue; cat <<'SCRIPT'
checkout
began=$(date +%s.%N)
docker pull --quiet "$WEB" > /dev/null & first=$!
docker pull --quiet "$API" > /dev/null
wait "$first"
phase pull "$began"
began=$(date +%s.%N)
cat > /run/override.yml <<YAML
services:
  web: {image: "$WEB", build: !reset null, healthcheck: {start_period: 25s, start_interval: 250ms}}
  api: {image: "$API", build: !reset null, healthcheck: {start_period: 25s, start_interval: 250ms}}
  store: {healthcheck: {start_period: 25s, start_interval: 250ms}}
YAML
docker compose -p guestbook -f docker-compose.yml -f /run/override.yml up --detach --no-build --wait --timeout 2 2>&1
rm /run/override.yml
phase up "$began"
SCRIPT
    } | vm_do "$BARE_NAME-preview" WHAT=preview SHA="$1" TOKEN="$BARE_TOKEN" REPO="$BARE_REPO" \
            WEB="$BARE_REGISTRY/$BARE_NAME/pr/web@$web" API="$BARE_REGISTRY/$BARE_NAME/pr/api@$api" > "$BARE_FOLDER/deploy.out"
    grep '^phase' "$BARE_FOLDER/deploy.out"
}

all_of() {  # wait for every process; the first failure ends the run
    local failed=0
    for process in "$@"; do wait "$process" || failed=1; done
    return "$failed"
}

case ${1:-} in
    open)
        build web "$2" & builds=($!)
        build api "$2" & builds+=($!)
        preview_boot & builds+=($!)
        all_of "${builds[@]}"
        deploy "$2"
        ;;
    push)
        build web "$2" & builds=($!)
        build api "$2" & builds+=($!)
        all_of "${builds[@]}"
        deploy "$2"
        ;;
    close)
        for vm in $(docker ps --all --quiet --filter "label=stagely.bench=$BARE_NAME"); do vm_destroy "$vm"; done
        rm -rf "$BARE_FOLDER"
        ;;
    *)
        sed -n '2,7p' "$0" >&2
        exit 2
        ;;
esac
