"""Says which torch this is, and which GPUs it sees; ends with 0 also without one."""

import torch

print("torch", torch.__version__, "built for CUDA", torch.version.cuda)
count = torch.cuda.device_count()
print(count, "GPUs")
for index in range(count):
    print(f"cuda:{index}", torch.cuda.get_device_name(index))
