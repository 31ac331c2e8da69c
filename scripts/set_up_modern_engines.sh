#!/usr/bin/env bash
# Put docker 28 with containerd's image store, and podman 5, beside the engines that a Debian 12
# machine has, from Debian's unstable release. Each has a store and a socket of its own; nothing of
# the machine's engines is changed. For test machines: run it as root; systemd is not needed. Steps
# that are done are skipped.
#
#   scripts/set_up_modern_engines.sh         install and start
#   scripts/set_up_modern_engines.sh stop    end the daemon that this script started, and remove the
#                                            images of both
#
# Each has a directory in /opt/mlcheck-engines/servers. To use one, add its bin/ to PATH and set the
# variables in its environment file:
#   (export $(cat /opt/mlcheck-engines/servers/docker-28/environment); docker info)
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/debian_unstable.sh"

TOP=/opt/mlcheck-engines
ROOT=$TOP/root
LIBRARIES=$TOP/lib
SERVERS=$TOP/servers
DATA=/var/lib/mlcheck-engines
RUN=/run/mlcheck-engines
BRIDGE=mlcheck-docker
LOG=/var/log/mlcheck-engines-dockerd.log

PROGRAMS=(docker.io docker-cli containerd runc podman crun conmon netavark aardvark-dns catatonit
  golang-github-containers-common golang-github-containers-image)
NEEDED=(libc6 libseccomp2 libsystemd0 libcap2 libsqlite3-0 libgpgme45 libassuan9 libgpg-error0
  libsubid6 libyajl2 libglib2.0-0t64 libpcre2-8-0 libapparmor1 libaudit1 libselinux1
  libdevmapper1.02.1 libblake3-0 libjson-c5 libgcc-s1 libstdc++6 libtbb12)

install_programs() {
  [ ! -e "$TOP/installed" ] || return 0
  local work deb
  work=$(mktemp -d)
  trap 'rm -rf "$work"' RETURN
  rm -rf "$ROOT" "$LIBRARIES"
  mkdir -p "$work/debs" "$work/unpacked" "$ROOT" "$LIBRARIES"
  download_unstable "$work/debs" "${PROGRAMS[@]}" "${NEEDED[@]}"
  for deb in "${NEEDED[@]}"; do
    dpkg-deb -x "$work/debs/$deb"_*.deb "$work/unpacked"
  done
  copy_libraries "$work/unpacked" "$LIBRARIES"
  for deb in "${PROGRAMS[@]}"; do
    dpkg-deb -x "$work/debs/$deb"_*.deb "$ROOT"
  done
  use_libraries "$LIBRARIES" "$ROOT"/usr/bin/{docker,containerd,containerd-shim-runc-v2,podman,crun,conmon} \
    "$ROOT"/usr/sbin/{dockerd,runc} "$ROOT"/usr/lib/podman/{netavark,aardvark-dns}
  touch "$TOP/installed"
}

# A machine that may not raise resource limits refuses podman's defaults, and crun refuses hybrid
# cgroups; runc does not mind.
configure_podman() {
  local server=$SERVERS/podman-5
  mkdir -p "$server/bin"
  cat >"$server/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[engine]
runtime = "runc"
conmon_path = ["$ROOT/usr/bin/conmon"]
helper_binaries_dir = ["$ROOT/usr/lib/podman", "$ROOT/usr/libexec/podman"]
[engine.runtimes]
runc = ["$ROOT/usr/sbin/runc"]
[network]
network_backend = "netavark"
CONF
  printf '%s\n' "CONTAINERS_CONF=$server/containers.conf" PODMAN_IGNORE_CGROUPSV1_WARNING=1 \
    >"$server/environment"
  cat >"$server/bin/podman" <<SH
#!/bin/sh
exec $ROOT/usr/bin/podman --root $DATA/podman --runroot $RUN/podman --tmpdir $RUN/libpod "\$@"
SH
  chmod +x "$server/bin/podman"
}

start_docker() {
  local server=$SERVERS/docker-28
  mkdir -p "$server/bin" "$RUN" "$DATA"
  ln -sf "$ROOT/usr/bin/docker" "$server/bin/docker"
  echo "DOCKER_HOST=unix://$RUN/docker.sock" >"$server/environment"
  cat >"$server/daemon.json" <<JSON
{
  "features": {"containerd-snapshotter": true},
  "data-root": "$DATA/docker",
  "exec-root": "$RUN/docker",
  "pidfile": "$RUN/docker.pid",
  "hosts": ["unix://$RUN/docker.sock"],
  "bridge": "$BRIDGE", "iptables": false, "ip6tables": false
}
JSON
  answers() { "$ROOT/usr/bin/docker" --host "unix://$RUN/docker.sock" version >/dev/null 2>&1; }
  ! answers || return 0
  # A bridge of its own: with "none", the daemon deletes docker0, which is the machine's docker's.
  if [ ! -e "/sys/class/net/$BRIDGE" ]; then
    ip link add "$BRIDGE" type bridge
    ip address add 172.31.255.1/24 dev "$BRIDGE"
    ip link set "$BRIDGE" up
  fi
  # Killed daemons leave their files behind.
  rm -f "$RUN/docker.pid" "$RUN/docker/containerd/containerd.pid"
  PATH=$ROOT/usr/bin:$ROOT/usr/sbin:$PATH dockerd --config-file "$server/daemon.json" \
    >"$LOG" 2>&1 </dev/null &
  for _ in $(seq 150); do
    ! answers || return 0
    sleep 0.2
  done
  tail -20 "$LOG" >&2
  fail "dockerd did not start; its log is $LOG"
}

stop() {
  if [ -e "$RUN/docker.pid" ]; then
    kill "$(cat "$RUN/docker.pid")" || true
    for _ in $(seq 150); do
      [ -e "$RUN/docker.pid" ] || break
      sleep 0.2
    done
    [ ! -e "$RUN/docker.pid" ] || fail "dockerd did not end"
  fi
  if [ -d "$DATA/podman" ]; then
    # Also unmounts what it has mounted.
    # shellcheck disable=SC2046
    env $(cat "$SERVERS/podman-5/environment") "$SERVERS/podman-5/bin/podman" \
      system reset --force >/dev/null 2>&1 || true
  fi
  [ ! -e "/sys/class/net/$BRIDGE" ] || ip link delete "$BRIDGE"
  # What a daemon leaves mounted: its network namespace.
  awk -v top="$RUN/" 'index($2, top) == 1 { print $2 }' /proc/mounts | tac |
    xargs --no-run-if-empty umount --lazy
  rm -rf "$DATA" "$RUN" "$SERVERS"
}

[ "$(id -u)" = 0 ] || fail "run this as root"
if [ "${1:-}" = stop ]; then
  stop
  exit
fi
install_programs
start_docker
configure_podman
for server in docker-28 podman-5; do
  (
    # shellcheck disable=SC2046
    export $(cat "$SERVERS/$server/environment")
    "$SERVERS/$server/bin/${server%-*}" version --format "$server: {{.Client.Version}}"
  )
done
