"""TensorFlow and torch, with CUDA's libraries."""
