"""Jupyter: kernelspecs, kernels, JupyterLab."""
