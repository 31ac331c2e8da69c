#!/usr/bin/env bash
# Install docker, podman and apptainer from Debian's packages on a Debian 12 machine, and start the
# docker daemon. For test machines: run it as root; systemd is not needed. Steps that are done are
# skipped.
#
#   scripts/set_up_engines.sh          install and start
#   scripts/set_up_engines.sh modern   the same, and beside them docker 28 with containerd's image
#                                      store and podman 5: scripts/set_up_modern_engines.sh
#   scripts/set_up_engines.sh stop     end the docker daemons that this script started
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

LOG=/var/log/mlcheck-dockerd.log
PID=/run/docker.pid
OURS=/run/mlcheck-dockerd

# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/debian_unstable.sh"

install_packages() {
  local wanted=(docker.io docker-registry podman runc uidmap slirp4netns fuse-overlayfs iptables
    squashfs-tools squashfuse patchelf)
  dpkg --status "${wanted[@]}" >/dev/null 2>&1 && return
  apt-get -qq update
  apt-get -qq install --no-install-recommends "${wanted[@]}" </dev/null >/dev/null
}

# A machine that may not raise resource limits refuses podman's defaults (1048576 files), and
# crun refuses hybrid cgroups; runc does not mind.
configure_podman() {
  [ -e /etc/containers/containers.conf ] && return
  mkdir -p /etc/containers
  cat >/etc/containers/containers.conf <<'CONF'
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[engine]
runtime = "runc"
CONF
}

# Modes as set by udev. An ordinary user needs these devices to mount SIF files, and for containers
# with a network.
open_devices() {
  local device
  for device in /dev/fuse /dev/net/tun; do
    [ ! -c "$device" ] || chmod 666 "$device"
  done
}

start_docker() {
  docker version >/dev/null 2>&1 && return
  # Killed daemons leave their files behind.
  rm -f "$PID" /var/run/docker/containerd/containerd.pid
  /usr/sbin/dockerd >"$LOG" 2>&1 </dev/null &
  touch "$OURS"
  for _ in $(seq 150); do
    docker version >/dev/null 2>&1 && return
    sleep 0.2
  done
  tail -20 "$LOG" >&2
  fail "dockerd did not start; its log is $LOG"
}

stop_docker() {
  [ -e "$OURS" ] && [ -e "$PID" ] || return 0
  rm "$OURS"
  kill "$(cat "$PID")"
  for _ in $(seq 150); do
    [ -e "$PID" ] || return 0
    sleep 0.2
  done
  fail "dockerd did not end"
}

# apptainer is only in Debian's unstable release.
install_apptainer() {
  apptainer --version >/dev/null 2>&1 && return
  local work libraries=/opt/apptainer-libraries
  work=$(mktemp -d)
  trap 'rm -rf "$work"' RETURN
  mkdir -p "$work"/{unpacked,debs} "$libraries"
  download_unstable "$work/debs" apptainer libc6 libseccomp2 libsqlite3-0
  local deb
  for deb in libc6 libseccomp2 libsqlite3-0; do
    dpkg-deb -x "$work/debs/${deb}"_*.deb "$work/unpacked"
  done
  copy_libraries "$work/unpacked" "$libraries"
  dpkg-deb -x "$work"/debs/apptainer_*.deb /
  use_libraries "$libraries" /usr/bin/apptainer /usr/lib/x86_64-linux-gnu/apptainer/bin/starter
  apptainer --version >/dev/null || fail "apptainer does not start"
}

[ "$(id -u)" = 0 ] || fail "run this as root"
if [ "${1:-}" = stop ]; then
  "$(dirname "$0")/set_up_modern_engines.sh" stop
  stop_docker
  exit
fi
install_packages
configure_podman
open_devices
start_docker
install_apptainer
docker version --format 'docker {{.Server.Version}}'
podman version --format 'podman {{.Client.Version}}'
apptainer --version
[ "${1:-}" != modern ] || "$(dirname "$0")/set_up_modern_engines.sh"
