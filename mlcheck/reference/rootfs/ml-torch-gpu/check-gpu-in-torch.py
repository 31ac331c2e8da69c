"""Print the version of torch, and whether it can use a GPU; exit with 0 even without one."""

import torch

print("torch", torch.__version__)
print("CUDA available:", torch.cuda.is_available())
