# shellcheck shell=bash
# Debian's packages from a release that this machine does not run, through the machine's own mirror.

# The mirror that this machine's package sources name. Empty on a machine that is not Debian.
debian_mirror() {
    local found
    found=$(mirror_in_lists)
    # A machine whose package lists were never fetched knows its mirror only afterwards.
    if [ -z "$found" ] && is_root && apt-get update -q >&2; then
        found=$(mirror_in_lists)
    fi
    echo "$found"
}

mirror_in_lists() {
    # shellcheck disable=SC2016  # These are apt's own variables.
    apt-get indextargets --format '$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)' 2>/dev/null |
        awk '$1 == "Debian" && $2 == "Debian" && $3 == "main" {print $4; exit}'
}

# separate_apt FOLDER SUITE: from here on apt in this shell knows SUITE only, with all of its state in FOLDER.
separate_apt() {
    local folder=$1 suite=$2 mirror
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || { echo "no Debian mirror among this system's package sources" >&2; return 1; }
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
    chmod 755 "$folder" # apt fetches as a user of its own.
    echo "deb [signed-by=$(debian_keyring)] $mirror $suite main" > "$folder/sources.list"
    cat > "$folder/apt.conf" <<END
Dir::Etc::sourcelist "$folder/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$folder/lists";
Dir::Cache "$folder/cache";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
END
    export APT_CONFIG=$folder/apt.conf
    apt-get update -q
}

debian_keyring() {
    for keyring in /usr/share/keyrings/debian-archive-keyring.pgp /usr/share/keyrings/debian-archive-keyring.gpg; do
        [ ! -e "$keyring" ] || { echo "$keyring"; return; }
    done
}
