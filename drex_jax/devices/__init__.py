"""Devices, meshes and processes: the only package that decides where a computation runs."""
