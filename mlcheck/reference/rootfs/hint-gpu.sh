
# A GPU is of use in here only with its driver's libraries, which come from the host. Programs load
# libcuda.so.1, by the loader, wherever an engine put it: so that is what is tried.
if lspci 2>/dev/null | grep -qi nvidia &&
    ! python3 -I -c 'import ctypes; ctypes.CDLL("libcuda.so.1")' 2>/dev/null; then
    echo
    echo "This machine has an NVIDIA GPU, but no libcuda.so.1 of its driver can be loaded in here."
    echo "  Start the container with --nv (apptainer, singularity), --gpus all (docker)"
    echo "  or --device nvidia.com/gpu=all (podman)"
fi
