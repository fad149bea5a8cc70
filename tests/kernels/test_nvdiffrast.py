"""The way to nvdiffrast and back, with a stand-in for it that has OpenGL's conventions, as its manual says."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from raster_scenes import random_triangles

from kernels import nvdiffrast
from kernels.antialias import antialias
from kernels.interpolate import interpolate
from kernels.rasterize_mesh import rasterize_mesh
from kernels.texture import texture

UPWARDS = torch.tensor([1.0, -1, 1, 1])
"""Of positions, what turns y."""
TURNED = torch.tensor([1.0, -1, 1, -1])
"""Of derivatives, (du/dX, du/dY, dv/dX, dv/dY), what turns Y."""


def _turned(image: torch.Tensor) -> torch.Tensor:
    """From rows that run from the bottom to rows from the top, and back."""
    return image.flip(1)


class _Peeler:
    """Renders what is up at the image's top, and stores it from the bottom."""

    def __init__(self, context, positions, faces, resolution):
        assert context == "context of cpu"
        assert positions.ndim == 3
        assert positions.is_contiguous()
        assert faces.is_contiguous()
        self._scene, self._layer = (positions * UPWARDS, faces, resolution[1], resolution[0]), 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def rasterize_next_layer(self):
        self._layer += 1
        rast, db = _by_ours(rasterize_mesh, *self._scene, layers=4)
        return _turned(rast[self._layer - 1]), _turned(db[self._layer - 1]) * TURNED


def _interpolate(attributes, rast, faces, rast_db=None, diff_attrs=None):
    assert attributes.ndim == 3
    assert all(t.is_contiguous() for t in (attributes, rast, faces))
    values, derivatives = _by_ours(interpolate, attributes, rast, faces, rast_db, diff_attrs)
    return values, values.new_empty(*values.shape[:3], 0) if derivatives is None else derivatives


def _texture(image, uv, uv_da=None, *, filter_mode, boundary_mode):
    """Look up with (0, 0) at the image's lower left corner, which is stored from the bottom."""
    assert (uv_da is not None) == (filter_mode == "linear-mipmap-linear")
    up = torch.stack([uv[..., 0], 1 - uv[..., 1]], dim=-1)
    footprint = None if uv_da is None else uv_da * torch.tensor([1.0, 1, -1, -1])  # v is turned
    modes = {"filter_mode": filter_mode, "boundary_mode": boundary_mode}
    return _by_ours(texture, _turned(image), up, footprint, **modes)


def _antialias(color, rast, positions, faces):
    found = _by_ours(antialias, _turned(color), _turned(rast), positions * UPWARDS, faces)
    return _turned(found)


def _by_ours(operation, *arguments, **named):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvdiffrast, "takes", lambda _: False)
        return operation(*arguments, **named)


@pytest.fixture
def stand_in(monkeypatch):
    package, module = ModuleType("nvdiffrast"), ModuleType("nvdiffrast.torch")
    module.RasterizeCudaContext = lambda device: f"context of {device}"
    module.DepthPeeler, module.interpolate = _Peeler, _interpolate
    module.texture, module.antialias = _texture, _antialias
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", module)
    monkeypatch.setattr(nvdiffrast, "takes", lambda _: True)
    nvdiffrast._context.cache_clear()
    yield
    nvdiffrast._context.cache_clear()


def _picture(layers: int) -> tuple[torch.Tensor, ...]:
    """Return all that is seen of a textured scene, and its gradients."""
    generator = torch.Generator().manual_seed(1)
    positions, faces = random_triangles(0, 30, batch=2)
    uv, image = (torch.rand(shape, generator=generator) for shape in ((positions.shape[1], 2), (1, 8, 4, 3)))
    leaves = [t.requires_grad_() for t in (positions, uv, image)]
    rast, rast_db = rasterize_mesh(positions, faces, 24, 16, layers=layers)
    one, one_db = (rast, rast_db) if layers == 1 else (rast[1], rast_db[1])
    places, footprint = interpolate(uv, one, faces, one_db, "all")
    plain, nothing = interpolate(uv[None], one, faces)
    assert nothing is None
    seen = texture(image, places, footprint, filter_mode="linear-mipmap-linear", boundary_mode="clamp")
    seen = seen + texture(image, plain, filter_mode="linear")
    smooth = antialias(seen, one.detach(), positions, faces)
    weights = torch.rand(smooth.shape, generator=generator)
    return rast, rast_db, places, footprint, smooth, *torch.autograd.grad((smooth * weights).sum(), leaves)


@pytest.mark.parametrize("layers", [1, 3])
def test_tensors_are_ours(layers, stand_in):
    theirs = _picture(layers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvdiffrast, "takes", lambda _: False)
        ours = _picture(layers)
    assert (ours[0][..., 3] > 0).float().mean() > 0.1
    for their, our in zip(theirs, ours, strict=True):
        torch.testing.assert_close(their, our, rtol=1e-3, atol=1e-3 * our.abs().max().item())


def test_no_derivatives_of_no_attributes(stand_in):
    positions, faces = random_triangles(0, 5, batch=1)
    rast, rast_db = rasterize_mesh(positions, faces, 8, 8)
    assert interpolate(torch.rand(positions.shape[1], 2), rast, faces, rast_db, [])[1].shape == (1, 8, 8, 0)


def test_it_is_chosen_by_the_environment(monkeypatch):
    on_gpu, on_cpu = SimpleNamespace(is_cuda=True), torch.zeros(1)
    monkeypatch.delenv(nvdiffrast.VARIABLE, raising=False)
    assert not nvdiffrast.takes(on_gpu)
    monkeypatch.setenv(nvdiffrast.VARIABLE, "nvdiffrast")
    assert nvdiffrast.takes(on_gpu)
    assert not nvdiffrast.takes(on_cpu)
    monkeypatch.setenv(nvdiffrast.VARIABLE, "egregium")
    assert not nvdiffrast.takes(on_gpu)
    monkeypatch.setenv(nvdiffrast.VARIABLE, "opengl")
    positions, faces = random_triangles(0, 5, batch=1)
    with pytest.raises(ValueError, match="RECON_MESH_BACKEND=opengl: it is egregium or nvdiffrast"):
        rasterize_mesh(positions, faces, 8, 8)


def test_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvdiffrast", None)
    monkeypatch.delitem(sys.modules, "nvdiffrast.torch", raising=False)
    monkeypatch.setattr(nvdiffrast, "takes", lambda _: True)
    positions, faces = random_triangles(0, 5, batch=1)
    with pytest.raises(RuntimeError, match=r"pip install 'egregium\[nvdiffrast\]'.*non-commercial"):
        rasterize_mesh(positions, faces, 8, 8)
