# shellcheck shell=bash
# setup.json: where everything is, for `stagely dev`.

DOES="write down what was found in $RECORD"
WHY="\`stagely dev\` starts these programs"
LIMIT_S=30
REMEDY="see that $CACHE can be written"

# shellcheck source=scripts/setup/temporal.sh
. "$REPOSITORY/scripts/setup/temporal.sh"
# shellcheck source=scripts/setup/mirror.sh
. "$REPOSITORY/scripts/setup/mirror.sh"
# shellcheck source=scripts/setup/packages.sh
. "$REPOSITORY/scripts/setup/packages.sh"

ready() {
    [ "$(cat "$RECORD" 2>/dev/null)" = "$(found)" ]
}

perform() {
    mkdir -p "$(dirname "$RECORD")"
    found > "$RECORD.new"
    mv "$RECORD.new" "$RECORD"
}

found() {
    cat <<END
{
  "temporal": "$(temporal_program)",
  "registry": "$(registry_program)",
  "vm_image": "$(vm_image)",
  "mirror": "$(mirror_kind)",
  "unshare": $(can_unshare),
  "arch": "$(architecture)"
}
END
}

# Can a user namespace be made, in which Postgres is not root? Its owner outside stays root, so no folder needs opening.
can_unshare() {
    if unshare --user --map-user=1000 --map-group=1000 -- true 2>/dev/null; then echo true; else echo false; fi
}
