#!/bin/sh
# The banner: what is in here, and how to add to it. Sourced or executed, it speaks once: apptainer
# sources it before the entrypoint does. CONTAINER_USERENV set to anything silences it: then an
# environment of the user's is being entered, which has its own.
if [ -z "${CONTAINER_USERENV:-}${PRINTME_SOURCED:-}" ]; then
    echo
    echo "For the content in this container,"
    echo "  please read the file /list-of-pkgs-inside.txt"
    echo
    # apptainer's users, who may not write the image, are the ones with a home that lasts.
    if [ -w /opt/conda ]; then
        echo 'To install new pkg(s), run "micromamba install pkg1 [pkg2 ...]"'
    elif [ -e /singularity ]; then
        echo 'To create your own new env, run "source /create-newEnv-on-base.sh -h" for help'
    fi
    export PRINTME_SOURCED=1
fi
