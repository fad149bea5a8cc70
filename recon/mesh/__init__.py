"""Meshes: what they are, fusion of depth maps, repair, remeshing, decimation, atlases and textures."""
