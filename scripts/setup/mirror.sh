# shellcheck shell=bash
# Where the VMs' Docker gets public images: through a cache of the public registry, or stand-ins made here.
# Decided once per machine, so that a short loss of the network does not change what images are.

PROBE_LIMIT_S=8

# pull-through, stand-ins, or nothing as long as it is not decided. STAGELY_MIRROR decides otherwise.
mirror_kind() {
    cat "$CACHE/stamps/mirror-kind" 2>/dev/null || recorded mirror
}

choose_mirror_kind() {
    local kind=${STAGELY_MIRROR:-}
    if [ -z "$kind" ] && public_registry_answers; then kind=pull-through; fi
    [ "${kind:=stand-ins}" = "$(mirror_kind)" ] || rm -rf "$CACHE/mirror" # A cache and stand-ins never share a storage.
    put_stamp mirror-kind "$kind"
}

# The Engine knows the public registry's address. It answers 401 to somebody it does not know, and that is an answer.
public_registry_answers() {
    local host
    host=$(docker info --format '{{.IndexServerAddress}}' | cut -d/ -f3)
    timeout "$PROBE_LIMIT_S" python3 - "https://$host/v2/" <<'END'
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(sys.argv[1], timeout=6)
except urllib.error.HTTPError as answer:
    sys.exit(0 if answer.code == 401 else 1)
except OSError:
    sys.exit(1)
END
}
