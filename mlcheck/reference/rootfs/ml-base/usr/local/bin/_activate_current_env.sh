# Sourced: makes the environment in CONDA_PREFIX (by default the one in MAMBA_ROOT_PREFIX) the
# current one. Doing it twice changes nothing more.
: "${CONDA_PREFIX:=${MAMBA_ROOT_PREFIX:-/opt/conda}}"
export CONDA_PREFIX
case ":$PATH:" in
    ":$CONDA_PREFIX/bin:"*) ;;
    *) export PATH="$CONDA_PREFIX/bin:$PATH" ;;
esac
if [ "$CONDA_PREFIX" = "${MAMBA_ROOT_PREFIX:-/opt/conda}" ]; then
    CONDA_DEFAULT_ENV=base
else
    CONDA_DEFAULT_ENV=${CONDA_PREFIX##*/}
fi
export CONDA_DEFAULT_ENV
# No pattern: zsh would end with an error where nothing matches it.
if [ -d "$CONDA_PREFIX/etc/conda/activate.d" ]; then
    for _script in $(ls "$CONDA_PREFIX/etc/conda/activate.d"); do
        case $_script in
            *.sh) . "$CONDA_PREFIX/etc/conda/activate.d/$_script" ;;
        esac
    done
    unset _script
fi
case "${PS1:-}" in
    "" | "($CONDA_DEFAULT_ENV) "*) ;;
    *) PS1="($CONDA_DEFAULT_ENV) ${PS1#(*) }" ;;
esac
