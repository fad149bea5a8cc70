"""The four operations together against what they stand for: the change of area-sampled images.

The image that is compared with is rendered at many samples a pixel, without antialiasing, and averaged over each pixel;
that the rasterizer sees what its twin in PyTorch sees is tested elsewhere.
Its moments Σ w(X, Y) I(X, Y) for several smooth w are compared before and after a movement by half a pixel or more.
The rendering's gradient is averaged over that movement, as the change is its integral: at one instant it depends on
where in the pixels the edges happen to lie, on the way these phases average out. Comparing many moments at once, by
the norm of the error, leaves none out because its own changes happen to cancel.

What remains, a fourteenth of the change as tolerance (it falls with the size of pixels): colours taken at
pixel centres stand for their areas, edges are straight within a pixel, and at the corners of silhouettes two edges
share a pixel, for which there is one blend.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from raster_scenes import cube, join, rotation, sphere
from torch import Tensor

from kernels.antialias import antialias
from kernels.clip import clip_positions
from kernels.face_neighbors import face_neighbors
from kernels.interpolate import interpolate
from kernels.rasterize_mesh import rasterize_mesh
from kernels.texture import texture

WIDTH, HEIGHT, SAMPLES, STOPS = 64, 56, 8, 16
MOVEMENTS = {
    "the object is shifted": [0, 0, 0, 0.03, -0.02, 0.05, *[0] * 9],
    "the object turns": [0.06, -0.045, 0.045, *[0] * 12],
    "the camera is shifted": [*[0] * 9, 0.02, 0.03, -0.06, 0, 0, 0],
    "the camera turns": [*[0] * 6, 0.03, -0.025, 0.06, *[0] * 6],
    "the lens changes": [*[0] * 12, 0.03, 0.4, -0.3],
}


class Scene:
    """Vertices, triangles and colours, moved by 15 numbers: object (turn 3, shift 3), camera (likewise), f, cx, cy."""

    def __init__(self, *meshes: tuple[Tensor, Tensor]) -> None:
        self.vertices, self.faces = join(*meshes)
        base = torch.tensor([[0.9, 0.2, 0.3], [0.1, 0.8, 0.4]], dtype=torch.float64)
        colors = [base[i] + 0.15 * torch.sin(2 * v) for i, (v, _) in enumerate(meshes)]
        self.colors = torch.cat(colors)
        self.neighbors = face_neighbors(self.faces)

    def clip(self, motion: Tensor, scale: int) -> Tensor:
        turn, shift, camera_turn, camera_shift, (zoom, cx, cy) = motion.split(3)
        vertices = self.vertices @ rotation(turn).T + shift
        translation = camera_shift + motion.new_tensor([0, 0, 4])
        viewmat = torch.cat(
            [torch.cat([rotation(camera_turn), translation[:, None]], 1), motion.new_tensor([[0, 0, 0, 1]])]
        )
        focal, zero = 1.3 * WIDTH * (1 + zoom), torch.zeros_like(zoom)
        K = torch.stack([focal, zero, WIDTH / 2 + cx, zero, focal, HEIGHT / 2 + cy, zero, zero, zero + 1 / scale])
        K = K.view(1, 3, 3) * scale  # but for the last row
        return clip_positions(vertices, viewmat[None], K, WIDTH * scale, HEIGHT * scale, 0.1, 20)

    def antialiased(self, motion: Tensor) -> Tensor:
        clip = self.clip(motion, 1).float()
        rast, rast_db = rasterize_mesh(clip, self.faces, WIDTH, HEIGHT)
        return antialias(self.shade(rast, rast_db), rast, clip, self.faces, self.neighbors)

    def shade(self, rast: Tensor, rast_db: Tensor) -> Tensor:
        return interpolate(self.colors.float(), rast, self.faces)[0]

    def area_sampled(self, motion: Tensor) -> Tensor:
        clip = self.clip(motion, SAMPLES).float()
        image = self.shade(*rasterize_mesh(clip, self.faces, WIDTH * SAMPLES, HEIGHT * SAMPLES))
        return image.unflatten(2, (WIDTH, SAMPLES)).unflatten(1, (HEIGHT, SAMPLES)).mean(dim=(2, 4))


class Textured(Scene):
    """A tilted square with a picture on it, looked up with footprints."""

    def __init__(self) -> None:
        square = torch.tensor([[-1, -1, 0.6], [1, -1, -0.5], [1, 1, -0.6], [-1, 1, 0.5]], dtype=torch.float64)
        super().__init__((square, torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)))
        self.uv = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
        x, y = torch.meshgrid(torch.arange(64) / 64, torch.arange(64) / 64, indexing="xy")
        self.picture = torch.stack([torch.sin(5 * x), torch.cos(4 * y + x), x * y], dim=-1)[None]

    def shade(self, rast: Tensor, rast_db: Tensor) -> Tensor:
        uv, uv_da = interpolate(self.uv, rast, self.faces, rast_db, "all")
        picture = texture(self.picture, uv, uv_da, filter_mode="linear-mipmap-linear", boundary_mode="clamp")
        return picture * (rast[..., 3:] > 0)


SCENES: dict[str, Callable[[], Scene]] = {
    "a smooth silhouette": lambda: Scene(sphere(1.0, (0.1, 0.05, 0), 2)),
    "corners": lambda: Scene(cube(1.2, (0, 0.1, 0))),
    "one before the other": lambda: Scene(sphere(0.8, (-0.2, 0.05, 0.7), 2), cube(0.8, (0.3, 0.2, -0.7))),
    "two pass through one another": lambda: Scene(sphere(0.8, (-0.3, 0.05, 0)), sphere(0.8, (0.4, 0.2, -0.2))),
    "cubes pass through one another": lambda: Scene(cube(1.0, (-0.3, 0.05, 0)), cube(0.9, (0.4, 0.2, -0.2))),
    "a picture": Textured,
}


def moments(image: Tensor) -> Tensor:
    """Return (7,) sums of the image's grey (1, H, W, 3) times 1, x, y, x², xy, y², sin 4x, x and y from -1 to 1."""
    x, y = torch.meshgrid(
        (torch.arange(WIDTH) + 0.5) / WIDTH * 2 - 1, (torch.arange(HEIGHT) + 0.5) / HEIGHT * 2 - 1, indexing="xy"
    )
    weights = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y, torch.sin(4 * x)]).double()
    return torch.einsum("khw,hwc,c->k", weights, image[0].double(), torch.tensor([1, 0.6, 0.3]).double())


@pytest.mark.parametrize("name", SCENES)
def test_gradients_are_the_changes_of_areas(name):
    scene = SCENES[name]()
    errors = {}
    for movement, numbers in MOVEMENTS.items():
        way = torch.tensor(numbers, dtype=torch.float64)
        with torch.no_grad():
            change = moments(scene.area_sampled(way)) - moments(scene.area_sampled(-way))
        slope = torch.zeros_like(change)
        for stop in range(STOPS):
            at = torch.tensor((2 * stop + 1) / STOPS - 1, dtype=torch.float64, requires_grad=True)
            found = moments(scene.antialiased(at * way))
            slope += torch.stack([torch.autograd.grad(v, at, retain_graph=True)[0] for v in found]) * 2 / STOPS
        errors[movement] = ((slope - change).norm() / change.norm()).item()
    assert max(errors.values()) < 0.07, errors


def test_without_the_gradient_of_edges_it_fails():
    """The measure sees what it should: shading alone is far off."""
    scene = Scene(sphere(1.0, (0.1, 0.05, 0), 2))
    way = torch.tensor(MOVEMENTS["the object is shifted"], dtype=torch.float64)
    change = moments(scene.area_sampled(way)) - moments(scene.area_sampled(-way))
    at = torch.zeros((), dtype=torch.float64, requires_grad=True)
    rast, rast_db = rasterize_mesh(scene.clip(at * way, 1).float(), scene.faces, WIDTH, HEIGHT)
    found = moments(scene.shade(rast, rast_db))
    slope = torch.stack([torch.autograd.grad(v, at, retain_graph=True)[0] for v in found])
    assert (2 * slope - change).norm() > 0.5 * change.norm()
