# Functions for programs of Debian's unstable release on an older Debian. To be sourced.
# shellcheck shell=bash
#
# Such programs are built for a newer C library. That library is put beside them for their use
# alone; the machine's own is not changed.

fail() {
  echo "$1" >&2
  exit 1
}

# download_unstable DIRECTORY PACKAGE... : the packages' files, from the machine's own mirror.
download_unstable() {
  local work=$1/apt mirror
  mkdir -p "$work"/{lists/partial,cache/archives/partial}
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
  (cd "$1" && apt-get -qq "${options[@]}" download "${@:2}")
}

# copy_libraries TREE DIRECTORY : the shared libraries of unpacked packages, into one directory.
copy_libraries() {
  find "$1"/usr/lib/x86_64-linux-gnu -maxdepth 1 \( -name '*.so' -o -name '*.so.*' \) \
    -exec cp -a -t "$2" {} +
}

# use_libraries DIRECTORY PROGRAM... : bind programs to the loader and the libraries there.
use_libraries() {
  local program
  for program in "${@:2}"; do
    # RPATH, not RUNPATH: it must also apply to the libraries of the libraries.
    patchelf --set-interpreter "$1/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$1" "$program"
  done
}
