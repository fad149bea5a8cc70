"""Surfaces of fields, differentiable: FlexiCubes, MeshSDF, tetrahedra, sharp features of known fields."""

from recon.isosurface.flexicubes import FlexiCubes, Surface, sign_loss
from recon.isosurface.tetrahedra import tetrahedra

__all__ = ["FlexiCubes", "Surface", "sign_loss", "tetrahedra"]
