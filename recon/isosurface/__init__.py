"""Surfaces of fields, differentiable, and fits to photos: FlexiCubes, octrees, MeshSDF, tetrahedra, sharp features."""

from recon.isosurface.flexicubes import FlexiCubes, Surface, sign_loss
from recon.isosurface.leaf_loss import LeafLoss
from recon.isosurface.meshsdf import MeshSDF
from recon.isosurface.octree import Octree, OctreeSurface
from recon.isosurface.sharp import sharp_surface
from recon.isosurface.tetrahedra import tetrahedra

__all__ = [
    "FlexiCubes",
    "LeafLoss",
    "MeshSDF",
    "Octree",
    "OctreeSurface",
    "Surface",
    "sharp_surface",
    "sign_loss",
    "tetrahedra",
]
