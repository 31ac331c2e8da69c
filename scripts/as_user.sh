#!/usr/bin/env bash
# Run self-tests the way people run mlcheck: as an ordinary user in the group docker, with rootless
# podman, and with mlcheck's wheel in an environment of its own instead of a clone. Run it as root,
# after scripts/set_up_engines.sh and `make venv-dev`. The user is removed after the run.
#
#   scripts/as_user.sh [OPTIONS AND FILES FOR PYTEST]
set -euo pipefail
cd "$(dirname "$0")/.."

NAME=mlcheck-user
FILES=(selftests/suite/test_real_images.py selftests/engines/test_contract.py selftests/engines/test_private_files.py
  selftests/engines/test_reading.py selftests/unit/image/test_rootfs.py selftests/unit/cache/test_store.py)

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
  # Debian's useradd assigns subordinate ids itself, unless /etc/login.defs says otherwise.
  local kind
  for kind in uid gid; do
    grep -q "^$NAME:" "/etc/sub$kind" ||
      usermod "--add-sub${kind}s" 4000000-4065535 "$NAME"
  done
  HOME_OF_USER=$(getent passwd "$NAME" | cut -d: -f6)
  RUNTIME=/run/user/$(id -u "$NAME")
  install -d -m 755 /run/user
  install -d -m 700 -o "$NAME" -g "$NAME" "$RUNTIME"
  # Debian's podman copies the whole image for each container unless overlay is configured.
  install -d "$HOME_OF_USER/.config/containers"
  echo '[storage]
driver = "overlay"' >"$HOME_OF_USER/.config/containers/storage.conf"
  chown -R "$NAME:" "$HOME_OF_USER/.config"
}

remove_user() {
  id "$NAME" >/dev/null 2>&1 || return 0
  HOME_OF_USER=$(getent passwd "$NAME" | cut -d: -f6)
  RUNTIME=/run/user/$(id -u "$NAME")
  # Do this before killing the user's processes: podman knows which belong to a container.
  (cd / && as_user podman system reset --force) >/dev/null 2>&1 || true
  pkill -KILL -U "$NAME" || true
  # Leftovers of a run that was killed before it could remove them.
  docker images --format '{{.Repository}}:{{.Tag}}' --filter 'reference=mlcheck-real-*/*' |
    xargs --no-run-if-empty docker rmi --force >/dev/null
  userdel --force --remove "$NAME" 2>/dev/null
  rm -rf "$RUNTIME" "/tmp/pytest-of-$NAME"
}

install_wheel() {
  local wheels
  wheels=$(mktemp -d)
  .venv/bin/uv build --quiet --wheel --out-dir "$wheels"
  as_user python3 -m venv --without-pip "$HOME_OF_USER/venv"
  # pip's cache has the development environment's packages. The cache is root's, the result not.
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
as_user ../venv/bin/python -m pytest -rfE -n "$(($(nproc) + 1))" --dist worksteal --durations=10 "$@"
