"""Meshes: what they are, fusion of depth maps, repair, decimation."""
