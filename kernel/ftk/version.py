"""The version of the kernel, read by the build and by the compatibility check."""

__version__ = "0.1.0"
