#!/usr/bin/env bash
# Installs, through apt, the real servers and validators that the tests talk to.
set -euo pipefail

declare -A package_of=(
    [Orthanc]=orthanc
    [promtool]=prometheus
    [storescu]=dcmtk
    [dciodvfy]=dicom3tools
    [DicomSRValidator]=pixelmed-apps
    [javac]=default-jdk-headless
    [ip]=iproute2
    [systemd-analyze]=systemd
    [unshare]=util-linux
    [chromium]=chromium
)
# Ubuntu has kubectl as a snap only; without it the tests that need it say so.
grep -qx 'ID=ubuntu' /etc/os-release || package_of[kubectl]=kubernetes-client

look() {
    missing=()
    for tool in "${!package_of[@]}"; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "$tool" >/dev/null || missing+=("${package_of[$tool]}")
    done
    # PostgreSQL's server is not on the PATH in Debian: several versions may live side by side.
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)
    # Orthanc's plugins are no programs either.
    compgen -G '/usr/share/orthanc/plugins/libOrthancDicomWeb.so' >/dev/null \
        || missing+=(orthanc-dicomweb)
    compgen -G '/usr/share/orthanc/plugins/libOrthancPython.so' >/dev/null \
        || missing+=(orthanc-python)
    compgen -G '/usr/share/orthanc/plugins/libOrthancWebViewer.so' >/dev/null \
        || missing+=(orthanc-webviewer)
}

look
[ ${#missing[@]} -eq 0 ] && exit 0

# RUNLEVEL=1 keeps the packages from starting their servers: the tests start their own.
echo "missing Debian packages: ${missing[*]}"
install="apt-get install --yes --no-install-recommends ${missing[*]}"
if [ "$(id -u)" = 0 ]; then
    apt-get update --quiet=2
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $install >/dev/null
elif sudo --non-interactive true 2>/dev/null; then
    sudo apt-get update --quiet=2
    sudo DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $install >/dev/null
else
    echo "they cannot be installed without root: ask an administrator for"
    echo "    $install"
    exit 1
fi

# A test that a tool is missing for must not be left out in silence.
look
if [ ${#missing[@]} -ne 0 ]; then
    echo "still missing after the installation: ${missing[*]}; see what apt-get says of them"
    exit 1
fi
