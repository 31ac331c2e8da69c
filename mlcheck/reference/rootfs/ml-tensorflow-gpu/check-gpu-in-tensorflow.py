"""Print the version of TensorFlow, and the GPUs that it sees; exit with 0 even without a GPU."""

import tensorflow as tf

build = tf.sysconfig.get_build_info()
print("TensorFlow", tf.__version__, "built for CUDA", build.get("cuda_version"))
gpus = tf.config.list_physical_devices("GPU")
print(len(gpus), "GPUs")
for gpu in gpus:
    print(gpu.name)
