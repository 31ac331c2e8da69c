# Kept in an environment made inside a container by create-newEnv-on-base.sh, which puts the
# image's name in front of it. Sourced on the host it starts that image and enters the
# environment; sourced inside it only enters.
_userenv_dir=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd -P)
if [ "$_userenv_dir" = / ]; then
    echo "This is the template. Make an environment with /create-newEnv-on-base.sh, then source"
    echo "the copy in there."
elif [ -e "$_userenv_dir/baseEnv_dir/bin/python3" ]; then
    echo "Activating the user env under $_userenv_dir"
    CONDA_PREFIX=$_userenv_dir
    JUPYTER_PATH=$_userenv_dir/share/jupyter
    export CONDA_PREFIX JUPYTER_PATH
    unset PYTHONHOME
    . /usr/local/bin/_activate_current_env.sh
elif [ -n "${UserEnv_image:-}" ]; then
    _userenv_engine=$(command -v apptainer || command -v singularity || echo singularity)
    set -- exec --env CONTAINER_USERENV=yes -B "$_userenv_dir" "$UserEnv_image" \
        /bin/bash --rcfile "$_userenv_dir/setup-UserEnv-in-container.sh"
    echo "${_userenv_engine##*/} $*"
    "$_userenv_engine" "$@"
else
    echo "The image of this environment is not known: start its container, then source this." >&2
fi
unset _userenv_dir _userenv_engine
