#!/usr/bin/env bash
# Runs self-tests as people run mlcheck: an ordinary user in the group docker, who has podman
# without root, with mlcheck's wheel in an environment of its own and no clone. As root, after
# scripts/set_up_engines.sh and `make venv-dev`. The user goes with the run.
#
#   scripts/as_user.sh [OPTIONS AND FILES FOR PYTEST]
set -euo pipefail
cd "$(dirname "$0")/.."

NAME=mlcheck-user
FILES=(selftests/test_real_images.py selftests/test_engines.py selftests/test_private_files.py
  selftests/test_reading.py selftests/test_rootfs.py selftests/test_kept_store.py)

fail() {
  echo "$1" >&2
  exit 1
}

as_user() {
  setpriv --reuid "$NAME" --regid "$NAME" --init-groups \
    env -u XDG_CACHE_HOME -u XDG_CONFIG_HOME -u XDG_DATA_HOME -u DOCKER_HOST -u CONTAINER_HOST \
    HOME="$HOME_OF_USER" USER="$NAME" LOGNAME="$NAME" XDG_RUNTIME_DIR="$RUNTIME" \
    PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 "$@"
}

make_user() {
  useradd --create-home --shell /bin/bash --groups docker "$NAME"
  # Debian's useradd gives subordinate ids by itself, unless /etc/login.defs says otherwise.
  local kind
  for kind in uid gid; do
    grep -q "^$NAME:" "/etc/sub$kind" ||
      usermod "--add-sub${kind}s" 4000000-4065535 "$NAME"
  done
  HOME_OF_USER=$(getent passwd "$NAME" | cut -d: -f6)
  RUNTIME=/run/user/$(id -u "$NAME")
  install -d -m 755 /run/user
  install -d -m 700 -o "$NAME" -g "$NAME" "$RUNTIME"
  # Debian's podman copies each image whole for each container unless it is told of overlay.
  install -d "$HOME_OF_USER/.config/containers"
  echo '[storage]
driver = "overlay"' >"$HOME_OF_USER/.config/containers/storage.conf"
  chown -R "$NAME:" "$HOME_OF_USER/.config"
}

remove_user() {
  id "$NAME" >/dev/null 2>&1 || return 0
  HOME_OF_USER=$(getent passwd "$NAME" | cut -d: -f6)
  RUNTIME=/run/user/$(id -u "$NAME")
  # Before its processes are ended: of a container it knows which are its own.
  (cd / && as_user podman system reset --force) >/dev/null 2>&1 || true
  pkill -KILL -U "$NAME" || true
  # Of a run that was ended before it removed them.
  docker images --format '{{.Repository}}:{{.Tag}}' --filter 'reference=mlcheck-real-*/*' |
    xargs --no-run-if-empty docker rmi --force >/dev/null
  userdel --force --remove "$NAME" 2>/dev/null
  rm -rf "$RUNTIME"
}

install_wheel() {
  local wheels
  wheels=$(mktemp -d)
  .venv/bin/uv build --quiet --wheel --out-dir "$wheels"
  as_user python3 -m venv --without-pip "$HOME_OF_USER/venv"
  # pip has what the development environment needed in its cache; it is root's, the result not.
  .venv/bin/python -m pip --python "$HOME_OF_USER/venv/bin/python" install --quiet \
    --disable-pip-version-check --root-user-action=ignore "$wheels"/*.whl hypothesis pip
  rm -r "$wheels"
  mkdir "$HOME_OF_USER/tests"
  git ls-files -z selftests conftest.py pytest.toml |
    xargs -0 cp --parents --target-directory="$HOME_OF_USER/tests"
  chown -R "$NAME:" "$HOME_OF_USER"
}

[ "$(id -u)" = 0 ] || fail "run this as root"
[ -x .venv/bin/uv ] || fail "run this after \`make venv-dev\`"
remove_user
trap remove_user EXIT
make_user
install_wheel
cd "$HOME_OF_USER/tests"
[ $# -gt 0 ] || set -- "${FILES[@]}"
as_user ../venv/bin/python -m pytest -rfE -n 2 --dist worksteal --durations=10 "$@"
