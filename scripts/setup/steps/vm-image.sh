# shellcheck shell=bash
# The image of local VMs, built from deploy/local-vm and tagged with the fingerprint of these files.

DOES="build the image of local VMs from Debian's packages"
WHY="a VM then boots in a second or two, with Docker inside and nothing to download"
LIMIT_S=900
REMEDY="read the log: usually a Debian mirror that containers do not reach (look at DNS and proxies of Docker Engine) or a full disk"

ready() {
    has_image "$(vm_image)"
}

perform() {
    cd "$REPOSITORY/deploy/local-vm" || exit
    docker buildx build --builder default --progress plain --network host --label stagely.setup=local-vm --label stagely.stand-in= \
        --tag "$(vm_image)" .
}
