#!/usr/bin/env bash
# The images that Dockerfile and compose.yaml begin with, for a machine that reaches no registry of
# images: made of Debian's packages, under the names of those which they stand in for. Where a
# registry is within reach, `podman pull` brings the real ones, which are left alone here.
#
#     tests/container/base_images.sh
set -euo pipefail
cd "$(dirname "$0")"
export CONTAINERS_CONF=$PWD/containers.conf

python=docker.io/library/python:3.13-slim
if podman image exists "$python"; then
    exit
fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# trixie: its Python is 3.13.
debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates \
    trixie "$root" >"$root.log" 2>&1 || { tail -n 5 "$root.log" >&2; exit 1; }
rm "$root.log"
ln -s python3 "$root/usr/bin/python"
rm "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
# Whom this machine trusts, the package index behind a proxy of its own, too.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
tar -C "$root" --exclude='./var/cache/apt/archives/*.deb' -c . |
    podman import -q --change 'CMD ["python3"]' - "$python" >/dev/null
