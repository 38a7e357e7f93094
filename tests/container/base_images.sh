#!/usr/bin/env bash
# The images that Dockerfile and compose.yaml begin with, for a machine that reaches no registry of
# images: made of Debian's packages, under the names of those which they stand in for. Where a
# registry is within reach, `podman pull` brings the real ones, which are left alone here.
#
#     tests/container/base_images.sh
set -euo pipefail
cd "$(dirname "$0")"
export CONTAINERS_CONF=$PWD/containers.conf

make_python() {
    local root
    root=$(mktemp -d)
    trap 'rm -rf "$root" "$root.log"' RETURN
    # trixie: its Python is 3.13.
    debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates \
        trixie "$root" >"$root.log" 2>&1 || { tail -n 5 "$root.log" >&2; return 1; }
    ln -s python3 "$root/usr/bin/python"
    rm "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
    # Whom this machine trusts, a package index behind a proxy of its own, too.
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    tar -C "$root" --exclude='./var/cache/apt/archives/*.deb' -c . |
        podman import -q --change 'CMD ["python3"]' - "$1" >/dev/null
}

make() {
    podman build -q --pull=never --network=host --format=docker -t "$2" \
        -f "images/$1.Containerfile" images >/dev/null
}

image=docker.io/library/python:3.13-slim
podman image exists "$image" || make_python "$image"
for name in nats haproxy; do
    image=$(sed -n "s|^ *image: \(docker.io/library/$name:.*\)|\1|p" ../../compose.yaml)
    podman image exists "$image" || make "$name" "$image"
done
