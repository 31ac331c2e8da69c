# Use this image as a virtual environment on the host, without a container:
#     source IMAGE_DIR/setupMe-on-host.sh
# A copy of it in an environment made by create-newEnv-on-base.sh sets up that environment.
_mlenv_top=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd -P)
case $_mlenv_top in
    # PATH cannot hold a colon: take the way through a link, when the caller came by one.
    *:*) _mlenv_top=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd -L) ;;
esac
case $_mlenv_top in
    *:*)
        echo "setupMe-on-host.sh: $_mlenv_top has a colon in its name, which PATH cannot hold." >&2
        echo "Make a symbolic link to it without one, and source the script through that." >&2
        unset _mlenv_top
        return 1
        ;;
esac
if [ "$_mlenv_top" = / ]; then
    echo "Already inside the container: there is nothing to set up."
    unset _mlenv_top
    return 0
fi
if [ -e "$_mlenv_top/baseEnv_dir" ]; then
    CONDA_PREFIX=$_mlenv_top
    MAMBA_ROOT_PREFIX=$(readlink "$_mlenv_top/baseEnv_dir")
    EnvTopDir=${MAMBA_ROOT_PREFIX%/opt/conda}
else
    CONDA_PREFIX=$_mlenv_top/opt/conda
    MAMBA_ROOT_PREFIX=$CONDA_PREFIX
    EnvTopDir=$_mlenv_top
fi
MAMBA_EXE=$MAMBA_ROOT_PREFIX/bin/micromamba
JUPYTER_PATH=$CONDA_PREFIX/share/jupyter
SSL_CERT_FILE=$MAMBA_ROOT_PREFIX/ssl/cert.pem
export CONDA_PREFIX MAMBA_ROOT_PREFIX MAMBA_EXE JUPYTER_PATH SSL_CERT_FILE EnvTopDir
unset PYTHONHOME _mlenv_top
# As micromamba's own hook for shells does, which lets `micromamba activate` change the shell.
micromamba() {
    "$MAMBA_EXE" "$@"
}
. "$EnvTopDir/usr/local/bin/_activate_current_env.sh"
if [ "$CONDA_PREFIX" = "$MAMBA_ROOT_PREFIX" ] && [ -z "${CONTAINER_USERENV:-}" ]; then
    echo
    echo 'To create your own new env, run "source $EnvTopDir/create-newEnv-on-base.sh -h" for help'
fi
