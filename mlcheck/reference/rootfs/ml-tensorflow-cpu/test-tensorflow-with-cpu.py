"""Print the version of TensorFlow, and a result that it computes on the CPU."""

import tensorflow as tf

print("TensorFlow", tf.__version__)
print("CPUs:", tf.config.list_physical_devices("CPU"))
with tf.device("/CPU:0"):
    product = tf.matmul(tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([[5.0], [6.0]]))
print("computed on", product.device, product.numpy().tolist())
