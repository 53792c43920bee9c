# shellcheck shell=bash
# Let's Encrypt's test authority and its DNS server, `pebble` and `pebble-challtestsrv`. Only tests need them.

DOES="build Let's Encrypt's test authority with Go, from the module that tests/pebble pins (seconds to a minute)"
WHY="the tests of certificates order theirs there"
LIMIT_S=600
REMEDY="see that Go reaches its module proxy (Go 1.21 or newer also fetches the Go that the module asks for), or put pebble and pebble-challtestsrv 2.10 on PATH, then run it again"
PROGRAMS=(pebble pebble-challtestsrv)

ready() {
    is_built && return
    have go && return 1
    say pebble "no Go to build it with (1.21 or newer), and none on PATH: tests of certificates are skipped"
}

is_built() {
    local program
    for program in "${PROGRAMS[@]}"; do
        have "$program" || { [ -x "$CACHE/bin/$program" ] && has_stamp pebble "$(fingerprint tests/pebble)"; } || return 1
    done
}

perform() {
    local program
    mkdir -p "$CACHE/bin/new"
    cd "$REPOSITORY/tests/pebble" || exit
    for program in "${PROGRAMS[@]}"; do
        CGO_ENABLED=0 nice go build -mod=readonly -trimpath -gcflags=all=-dwarf=false -ldflags '-s -w' \
            -o "$CACHE/bin/new/" "github.com/letsencrypt/pebble/v2/cmd/$program"
        mv "$CACHE/bin/new/$program" "$CACHE/bin/$program"
    done
    rmdir "$CACHE/bin/new"
    put_stamp pebble "$(fingerprint tests/pebble)"
}
