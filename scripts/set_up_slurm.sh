#!/usr/bin/env bash
# Install Slurm from Debian's packages on a Debian 12 machine, without starting anything. For test
# machines: run it as root; systemd is not needed. selftests/slurm.py starts two nodes of it on this
# machine, in a directory of its own, for as long as the self-tests need them.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

wanted=(slurm-wlm munge)
if ! dpkg --status "${wanted[@]}" >/dev/null 2>&1; then
  # No daemon is to start when its package is installed.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  apt-get -qq update
  apt-get -qq install --no-install-recommends "${wanted[@]}" </dev/null >/dev/null
fi
slurmctld -V
