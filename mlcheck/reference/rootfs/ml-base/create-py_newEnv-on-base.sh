# Makes a Python virtual environment on top of this image's Python and activates it:
#     source create-py_newEnv-on-base.sh DIR
_pyenv_make() {
    local top
    top=$(cd "$(dirname "$1")" && pwd -P)
    case ${2:-} in
        "" | -h | --help)
            echo "Usage: source create-py_newEnv-on-base.sh DIR"
            echo
            echo "Makes a Python virtual environment in DIR that sees the packages of this image,"
            echo "and activates it."
            return 3
            ;;
    esac
    [ -e "$2" ] && { echo "create-py_newEnv-on-base.sh: $2 exists already" >&2; return 1; }
    "${top%/}/opt/conda/bin/python3" -I -m venv --system-site-packages --without-pip "$2" \
        && . "$2/bin/activate"
}

_pyenv_make "${BASH_SOURCE[0]:-$0}" "$@"
_pyenv_code=$?
unset -f _pyenv_make
[ "$_pyenv_code" -eq 3 ] && _pyenv_code=0
return "$_pyenv_code" 2> /dev/null || exit "$_pyenv_code"
