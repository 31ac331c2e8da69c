# Stand-in for ROOT's own script: source it.
ROOTSYS=/mycvmfs/pkgs/root-6.12.06
PYTHONPATH=$ROOTSYS/lib${PYTHONPATH:+:$PYTHONPATH}
export ROOTSYS PYTHONPATH
