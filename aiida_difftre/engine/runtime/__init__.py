"""The process and its machine: devices, progress, signals."""
