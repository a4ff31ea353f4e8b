#!/bin/bash
# Run a command as nobody, in a mount namespace of its own where a Python that only root can reach is readable.
# Usage, as root: unshare --mount bash nonroot.sh PYTHON_PREFIX COMMAND…
set -e
mount --make-rprivate /
prefix=$1; shift
if [ "${prefix#/root/}" != "$prefix" ]; then
  place=$(mktemp -d)
  mount --bind "$prefix" "$place"
  mount -t tmpfs -o mode=755 tmpfs /root
  mkdir -p "$prefix"
  mount --move "$place" "$prefix"
fi
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all "$@"
