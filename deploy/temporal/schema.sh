#!/bin/sh
# Temporal's two databases: made when missing, brought to this version's schema when older. Any number of times, one
# at a time. Killed half-way, it goes on where it was; only a first set-up that is killed in its first half second, in
# version 1.0, leaves a database that the tool cannot go on with, and says so: remove that empty database.
#
#   SQL_HOST, SQL_PORT, SQL_USER, SQL_PASSWORD, SQL_PLUGIN   where, as temporal-sql-tool reads them
#   SQL_TOOL                                                 the program, default temporal-sql-tool
#   DATABASE, VISIBILITY_DATABASE                            default temporal, temporal_visibility
#   MAINTENANCE_DATABASE                                     one that exists, to connect to first; default postgres
#
# Updating comes first. `setup-schema` writes version 0.0 over the version that is there when it cannot read that one,
# so it runs only after the tool said that there is none; any other failure ends the job with what the tool said.
set -eu

TOOL=${SQL_TOOL:-temporal-sql-tool}
: "${SQL_HOST:?the host of the database is missing}" "${SQL_USER:?the user of the database is missing}"
export SQL_PLUGIN="${SQL_PLUGIN:-postgres12}" SQL_PORT="${SQL_PORT:-5432}"
ATTEMPTS=${SCHEMA_ATTEMPTS:-30} # With the pause: a minute, longer than a database's recovery after a crash usually takes.
PAUSE_S=2
said=$(mktemp)
trap 'rm -f "$said"' EXIT

fail() {
    echo "schema: $1" >&2
    cat "$said" >&2
    exit 1
}

# Also the proof that host, user and password are right.
create_database() {
    attempt=1
    until "$TOOL" --database "$1" create-database --defaultdb "${MAINTENANCE_DATABASE:-postgres}" >"$said" 2>&1; do
        [ "$attempt" -lt "$ATTEMPTS" ] || fail "database $1 could not be made on $SQL_HOST:$SQL_PORT after $attempt tries"
        attempt=$((attempt + 1))
        sleep "$PAUSE_S"
    done
}

update() {
    "$TOOL" --database "$1" update-schema --schema-name "postgresql/v12/$2" >"$said" 2>&1
}

# No table of versions, or an empty one: a set-up that never began, or was killed before it wrote its version.
has_no_version() {
    grep -Eq 'reading current schema version.*(relation .*schema_version.* does not exist|no rows in result set)' "$said"
}

bring_up_to_date() {
    create_database "$1"
    if ! update "$1" "$2"; then
        has_no_version || fail "database $1 could not be updated"
        "$TOOL" --database "$1" setup-schema --version 0.0 >"$said" 2>&1 || fail "database $1 could not be set up"
        update "$1" "$2" || fail "database $1 was set up and could not be updated"
    fi
    echo "schema: $1 is up to date"
}

bring_up_to_date "${DATABASE:-temporal}" temporal
bring_up_to_date "${VISIBILITY_DATABASE:-temporal_visibility}" visibility
