"""Surfaces of fields, differentiable, and fits to photos: FlexiCubes, MeshSDF, tetrahedra, sharp features."""

from recon.isosurface.flexicubes import FlexiCubes, Surface, sign_loss
from recon.isosurface.meshsdf import MeshSDF
from recon.isosurface.sharp import sharp_surface
from recon.isosurface.tetrahedra import tetrahedra

__all__ = ["FlexiCubes", "MeshSDF", "Surface", "sharp_surface", "sign_loss", "tetrahedra"]
