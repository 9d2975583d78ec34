"""Devices, meshes and processes: the only room that decides where something runs."""
