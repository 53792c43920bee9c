#!/bin/sh
# Stagely's namespace: made when missing, with its retention and search attributes as given here. Any number of times.
#
#   TEMPORAL_ADDRESS     host:port of the server
#   TEMPORAL_NAMESPACE   default stagely
#   TEMPORAL_RETENTION   how long closed runs stay readable, default 7d
#   TEMPORAL             the program, default temporal
set -eu

TEMPORAL=${TEMPORAL:-temporal}
: "${TEMPORAL_ADDRESS:?host:port of the server is missing}"
NAMESPACE=${TEMPORAL_NAMESPACE:-stagely}
RETENTION=${TEMPORAL_RETENTION:-7d}
ATTEMPTS=${NAMESPACE_ATTEMPTS:-60}
PAUSE_S=2
export TEMPORAL_ADDRESS

# A new server answers before all its parts have found one another, and a new namespace is known to them after seconds.
retry() {
    attempt=1
    until said=$("$@" 2>&1); do
        if [ "$attempt" -ge "$ATTEMPTS" ] || is_final "$said"; then
            echo "namespace: gave up after $attempt tries of: $*" >&2
            echo "$said" >&2
            exit 1
        fi
        attempt=$((attempt + 1))
        sleep "$PAUSE_S"
    done
}

# An attribute of another type must be removed by hand, and with it the way to what was found by it.
is_final() {
    case $1 in
    *"different type"*) true ;;
    *) false ;;
    esac
}

there_is_one() {
    "$TEMPORAL" operator namespace describe --namespace "$NAMESPACE"
}

make_one() {
    there_is_one || "$TEMPORAL" operator namespace create --namespace "$NAMESPACE" --retention "$RETENTION"
}

# What is there already stays.
add_search_attributes() {
    "$TEMPORAL" operator search-attribute create --namespace "$NAMESPACE" \
        --name StagelyProject --type Keyword \
        --name StagelyRepo --type Keyword \
        --name StagelyState --type Keyword \
        --name StagelyProvider --type Keyword \
        --name StagelyRole --type Keyword \
        --name StagelyPr --type Int \
        --name StagelyExpiresAt --type Datetime
}

# The parts of a server look a namespace up every few seconds: usable is what a query may name. It finds nothing.
try_search_attributes() {
    "$TEMPORAL" workflow count --namespace "$NAMESPACE" --query "WorkflowId = '-' AND StagelyProject IS NULL \
        AND StagelyRepo IS NULL AND StagelyState IS NULL AND StagelyProvider IS NULL AND StagelyRole IS NULL \
        AND StagelyPr IS NULL AND StagelyExpiresAt IS NULL"
}

retry "$TEMPORAL" operator cluster health
retry make_one
retry "$TEMPORAL" operator namespace update --namespace "$NAMESPACE" --retention "$RETENTION"
retry add_search_attributes
retry try_search_attributes
echo "namespace: $NAMESPACE keeps closed runs for $RETENTION and has Stagely's search attributes"
