#!/bin/sh
# Installs the real programs that the tests run, as root on Debian; elsewhere says what is missing.
# Usage: install.sh [PACKAGE ...]   without arguments: all that the tests need
set -eu

missing() { ! command -v "$1" >/dev/null 2>&1; }

packages="$*"
if [ -z "$packages" ]; then
    missing rabbitmq-server && [ ! -x /usr/sbin/rabbitmq-server ] && packages="$packages rabbitmq-server"
    missing redis-server && packages="$packages redis-server"
    missing zstd && packages="$packages zstd"
    missing xz && packages="$packages xz-utils"
    missing bzip2 && packages="$packages bzip2"
    missing pigz && packages="$packages pigz"
    missing setfacl && packages="$packages acl"
    missing setfattr && packages="$packages attr"
    missing cback3 && packages="$packages cedar-backup3"
    missing ssh && packages="$packages openssh-client"
    missing sshd && [ ! -x /usr/sbin/sshd ] && packages="$packages openssh-server"
    missing rsync && packages="$packages rsync"
    missing busybox && packages="$packages busybox"
    missing mtree && packages="$packages mtree-netbsd"
    missing bsdtar && packages="$packages libarchive-tools"
    missing fusermount3 && packages="$packages fuse3"
fi
[ -n "$packages" ] || exit 0

if [ "$(id -u)" != 0 ] || missing apt-get; then
    echo "note: not installed:$packages; tests that need them are skipped (with CI=true they fail)" >&2
    exit 0
fi
# RUNLEVEL=1 keeps the packages from starting their services: the tests start their own, on loopback.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $packages >/dev/null
