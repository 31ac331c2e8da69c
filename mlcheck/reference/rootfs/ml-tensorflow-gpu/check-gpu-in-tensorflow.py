"""Says which TensorFlow this is, and which GPUs it sees; ends with 0 also without one."""

import tensorflow as tf

build = tf.sysconfig.get_build_info()
print("TensorFlow", tf.__version__, "built for CUDA", build.get("cuda_version"))
gpus = tf.config.list_physical_devices("GPU")
print(len(gpus), "GPUs")
for gpu in gpus:
    print(gpu.name)
