# Makes an environment of one's own on top of this image's, in less than a second:
#     source create-newEnv-on-base.sh -p myEnv
_newenv_help() {
    echo "Usage: source create-newEnv-on-base.sh -p DIR"
    echo
    echo "Makes a new environment in DIR (which must not exist yet) on top of the one in this"
    echo "image, and activates it. Packages that are installed there hide those of the image."
    echo
    echo "  -p DIR, --prefix DIR   where to make it"
    echo "  -h, --help             this text"
}

_newenv_fail() {
    echo "create-newEnv-on-base.sh: $1" >&2
    return 1
}

_newenv_make() {
    local top base prefix="" python
    # As setupMe-on-host.sh found it, which knows of colons.
    top=${EnvTopDir:-$(cd "$(dirname "$1")" && pwd -P)}
    shift
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) _newenv_help; return 3 ;;
            -p | --prefix)
                [ $# -ge 2 ] || { _newenv_fail "$1 needs a directory"; return 1; }
                prefix=$2
                shift 2
                ;;
            *) _newenv_fail "unknown word $1; -h shows what is known"; return 1 ;;
        esac
    done
    [ -n "$prefix" ] || { _newenv_help >&2; _newenv_fail "no directory is given"; return 1; }
    [ -e "$prefix" ] && { _newenv_fail "$prefix exists already"; return 1; }
    base=${top%/}/opt/conda
    mkdir -p "$prefix" || return 1
    prefix=$(cd "$prefix" && pwd -P)
    tar -xzf "$base/newEnv-base.tgz" -C "$prefix" || return 1
    ln -s "$base" "$prefix/baseEnv_dir"
    python=$("$base/bin/python3" -I -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
    printf '%s\n' "home = $base/bin" "include-system-site-packages = true" \
        "version = $python" > "$prefix/pyvenv.cfg"
    mkdir -p "$prefix/lib/python${python%.*}/site-packages" "$prefix/conda-meta" "$prefix/sbin"
    : > "$prefix/conda-meta/history"
    echo "Empty environment created at prefix: $prefix"
    echo "Next time, you can just run the following to activate your extended env"
    if [ "$top" = / ]; then
        {
            echo "UserEnv_image='${APPTAINER_CONTAINER:-${SINGULARITY_CONTAINER:-}}'"
            cat /setup-UserEnv-in-container.sh
        } > "$prefix/setup-UserEnv-in-container.sh"
        echo "        source $prefix/setup-UserEnv-in-container.sh"
        CONDA_PREFIX=$prefix
        JUPYTER_PATH=$prefix/share/jupyter
        export CONDA_PREFIX JUPYTER_PATH
        . /usr/local/bin/_activate_current_env.sh
    else
        cp "$top/setupMe-on-host.sh" "$prefix/setupMe-on-host.sh"
        echo "        source $prefix/setupMe-on-host.sh"
        . "$prefix/setupMe-on-host.sh"
    fi
}

_newenv_make "${BASH_SOURCE[0]:-$0}" "$@"
_newenv_code=$?
unset -f _newenv_help _newenv_fail _newenv_make
# Help is no failure. Executed instead of sourced, the same words end a process of their own.
[ "$_newenv_code" -eq 3 ] && _newenv_code=0
return "$_newenv_code" 2> /dev/null || exit "$_newenv_code"
