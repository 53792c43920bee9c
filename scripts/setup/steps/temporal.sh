# shellcheck shell=bash
# Temporal's server for one machine: the `temporal` program.

DOES="get Temporal's dev server (download, else built by Go, which takes 2 to 4 minutes)"
WHY="every workflow runs on it"
LIMIT_S=1500
REMEDY="install the Temporal CLI (\`temporal\` on PATH), or Go 1.21 or newer so that it can be built here, then run it again"
DOWNLOAD_LIMIT_S=120

# shellcheck source=scripts/setup/temporal.sh
. "$REPOSITORY/scripts/setup/temporal.sh"

ready() {
    [ -n "$(temporal_program)" ]
}

perform() {
    mkdir -p "$CACHE/bin"
    download || build
    "$CACHE/bin/temporal" --version
}

download() {
    timeout "$DOWNLOAD_LIMIT_S" "$VENV/bin/python" "$REPOSITORY/scripts/setup/download_temporal.py" "$CACHE/bin/temporal"
}

# A module of ours pins the program and everything it is made of (go.sum); the download above has no mirror.
build() {
    have go || { echo "no Go to build it with, and it could not be downloaded" >&2; exit 1; }
    cd "$REPOSITORY/deploy/temporal" || exit
    CGO_ENABLED=0 nice go build -mod=readonly -trimpath -gcflags=all=-dwarf=false -ldflags '-s -w' -o "$CACHE/bin/temporal.new" github.com/temporalio/cli/cmd/temporal
    mv "$CACHE/bin/temporal.new" "$CACHE/bin/temporal"
}
