"""An unpacked image, used on the host without a container."""
