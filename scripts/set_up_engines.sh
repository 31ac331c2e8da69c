#!/usr/bin/env bash
# Install docker, podman and apptainer from Debian's packages on a Debian 12 machine, and start the
# docker daemon. For test machines: run it as root; systemd is not needed. Steps that are done are
# skipped.
#
#   scripts/set_up_engines.sh          install and start
#   scripts/set_up_engines.sh stop     end the docker daemon that this script started
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

LOG=/var/log/mlcheck-dockerd.log
PID=/run/docker.pid
OURS=/run/mlcheck-dockerd

fail() {
  echo "$1" >&2
  exit 1
}

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

# apptainer is only in Debian's unstable release, built for a newer C library. That library is put
# beside it for its use alone; the machine's own is not changed.
install_apptainer() {
  apptainer --version >/dev/null 2>&1 && return
  local work libraries=/opt/apptainer-libraries
  work=$(mktemp -d)
  trap 'rm -rf "$work"' RETURN
  mkdir -p "$work"/{lists/partial,cache/archives/partial,unpacked,debs} "$libraries"
  local mirror
  mirror=$(
    sed '/^ *#/d' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
      grep -oE 'https?://[^ ]+/debian/?( |$)' | head -1 | tr -d ' ' || true
  )
  [ -n "$mirror" ] || fail "no Debian mirror in /etc/apt/sources.list*"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" \
    >"$work/sources.list"
  local options=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
  apt-get -qq "${options[@]}" update
  (cd "$work/debs" && apt-get -qq "${options[@]}" download apptainer libc6 libseccomp2 libsqlite3-0)
  local deb
  for deb in libc6 libseccomp2 libsqlite3-0; do
    dpkg-deb -x "$work/debs/${deb}"_*.deb "$work/unpacked"
  done
  find "$work"/unpacked/usr/lib/x86_64-linux-gnu \( -name '*.so' -o -name '*.so.*' \) -exec cp -a -t "$libraries" {} +
  dpkg-deb -x "$work"/debs/apptainer_*.deb /
  local program
  for program in /usr/bin/apptainer /usr/lib/x86_64-linux-gnu/apptainer/bin/starter; do
    # RPATH, not RUNPATH: it must also apply to the libraries of the libraries.
    patchelf --set-interpreter "$libraries/ld-linux-x86-64.so.2" \
      --force-rpath --set-rpath "$libraries" "$program"
  done
  apptainer --version >/dev/null || fail "apptainer does not start"
}

[ "$(id -u)" = 0 ] || fail "run this as root"
if [ "${1:-}" = stop ]; then
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
