"""Rasterize 3D Gaussian splats, with gradients to everything: the public function and its torch operator.

The operator ``egregium::rasterize_splats`` renders one camera; its CPU implementation is C++ (``kernels/cpu``), chosen
at run time for the machine's instruction set, the GPU's is Triton (``kernels/gpu/rasterize_splats.py``). The readable
twin is ``kernels/reference/rasterize_splats.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kernels import _cpu
from kernels.arguments import check_splats
from kernels.checks import require_dtype
from kernels.geometry import splat_planes
from kernels.gpu import on_gpu

LOG2_255 = 7.994353436858858


def rasterize_splats(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int | Sequence[int],
    height: int | Sequence[int],
    *,
    sh_degree: int | None = None,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    backgrounds: Tensor | None = None,
    masks: Tensor | Sequence[Tensor] | None = None,
    rasterize_mode: str = "classic",
    render_mode: str = "RGB",
) -> tuple[Any, Any, Mapping[str, Any]]:
    """Render splats, front to back, with the names and meanings of gsplat's ``rasterization``.

    A splat contributes to a pixel iff its alpha there is at least 1/255 and the transmittance in front of it at least
    1e-4; alpha is at most 0.999. Splats that are not finite, have a zero quaternion, lie outside the near and far
    planes or are fainter than 1/255 everywhere are culled and get zero gradients.

    Source: Kerbl et al. 2023, "3D Gaussian Splatting", §4; Zwicker et al. 2001, "EWA volume splatting"; depth planes
    as in Zhang et al. 2024, "RaDe-GS" (see ``kernels/geometry.py``).

    Args:
        means: (N, 3) centres in world units.
        quats: (N, 4) rotations wxyz, not necessarily normalised.
        scales: (N, 3) standard deviations along the splats' axes, in world units.
        opacities: (N,) in [0, 1].
        colors: (N, D) colours or any features; or (N, K, 3) spherical-harmonic coefficients with ``sh_degree``.
        viewmats: (C, 4, 4) world to camera, OpenCV axes (x right, y down, z forward).
        Ks: (C, 3, 3) intrinsics in pixels; the centre of pixel (0, 0) is at (0.5, 0.5). Skew is ignored.
        width: of the images, 1 to 32768, one for all cameras or one each.
        height: likewise.
        sh_degree: 0 to 3: colour = max(0, ½ + Σ Y_k(direction) colors[:, k]); None: ``colors`` are colours.
        near_plane: splats nearer than this are culled.
        far_plane: splats further than this are culled.
        eps2d: added to the image-space variances, in square pixels.
        backgrounds: (C, D); black where None.
        masks: (C, H, W) bool, or a list of (H_c, W_c) where sizes differ. Where False nothing is rendered: colour
            is the background, alpha 0, and no gradient flows.
        rasterize_mode: ``"antialiased"`` keeps a small splat's total opacity (Mip-Splatting's 2D filter).
        render_mode: ``"RGB"``; ``"D"`` accumulated or ``"ED"`` expected depth alone; ``"RGB+D"``, ``"RGB+ED"`` both,
            depth as the last channel.

    Returns:
        colors: (C, H, W, D[+1]); a list of (H_c, W_c, ·) where the cameras' sizes differ, as all images below.
        alphas: (C, H, W, 1).
        meta: ``radii`` (C, N) int32 in pixels, 0 where culled or outside the image, ``means2d`` (C, N, 2) and
            ``depths`` (C, N), 0 where culled. With a depth mode also ``median_depths`` (C, H, W, 1), the depth where
            transmittance passes ½ (0 where it does not), and ``normals`` (C, H, W, 3), the sum of the splats' unit
            normals by weight, in the world's frame, towards the camera. A splat's depth is a plane, not one number.

    Differentiable in means, quats, scales, opacities, colors, backgrounds, viewmats and Ks (fx, fy, cx, cy). Not
    differentiable: ``median_depths`` and the rest of ``meta`` but ``normals``; culling; the limits at which the
    projection is linearised outside the field of view. Deterministic: the same bits for any number of threads.

    Raises:
        ValueError: a shape, dtype, device or setting does not fit; the message names it.
    """
    sizes = check_splats(
        means,
        quats,
        scales,
        opacities,
        colors,
        viewmats,
        Ks,
        width,
        height,
        sh_degree=sh_degree,
        near_plane=near_plane,
        far_plane=far_plane,
        eps2d=eps2d,
        backgrounds=backgrounds,
        masks=masks,
        rasterize_mode=rasterize_mode,
        render_mode=render_mode,
    )
    require_dtype("rasterize_splats", means, torch.float32)
    with_depth = render_mode != "RGB"
    with_color = render_mode.startswith("RGB")
    images, alphas, views, medians, normal_images = [], [], [], [], []
    for i, (w, h) in enumerate(sizes):
        viewmat, K = viewmats[i], Ks[i]
        background = None if backgrounds is None else backgrounds[i]
        features = None
        if with_depth:
            # A depth that is linear in the pixel, c + a x + b y, is blended as three constant channels.
            planes, normals = splat_planes(means, quats, scales, viewmat, K, eps2d)
            features = torch.cat([planes, normals], dim=1)
            if background is not None:
                background = torch.cat([background, background.new_zeros(features.shape[1])])
        image, alpha, median, records, runs, _, _ = torch.ops.egregium.rasterize_splats(
            means,
            quats,
            scales,
            opacities,
            colors,
            features,
            viewmat,
            K,
            background,
            None if masks is None else masks[i],
            w,
            h,
            -1 if sh_degree is None else sh_degree,
            near_plane,
            far_plane,
            eps2d,
            rasterize_mode == "antialiased",
            with_depth,
        )
        views.append((records, runs))
        if with_depth:
            color, image, normal = image.split([image.shape[2] - 6, 3, 3], dim=2)
            x, y = _pixel_centres(w, h, image)
            depth = image[..., 0:1] + x * image[..., 1:2] + y * image[..., 2:3]
            if "ED" in render_mode:
                depth = depth / alpha[..., None].clamp(min=1e-10)
            with torch.no_grad():
                c, a, b = (
                    planes[median.clamp(min=0).long()].split(1, dim=2) if len(means) else (torch.zeros_like(depth),) * 3
                )
                medians.append(torch.where(median[..., None] >= 0, c + a * x + b * y, 0))
            normal_images.append(normal)
            image = torch.cat([color, depth], dim=2) if with_color else depth
        images.append(image)
        alphas.append(alpha[..., None])
    known = {"median_depths": _join(medians), "normals": _join(normal_images)} if with_depth else {}
    meta = _Meta(views, known)
    return _join(images), _join(alphas), meta


def _join(images: list[Tensor]) -> Any:
    """Stack what can be stacked, without copying a single one."""
    if len(images) == 1:
        return images[0][None]
    return torch.stack(images) if len({t.shape for t in images}) == 1 else images


def _pixel_centres(width: int, height: int, like: Tensor) -> tuple[Tensor, Tensor]:
    x = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    y = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    return x.expand(height, width)[..., None], y[:, None].expand(height, width)[..., None]


class _Meta(Mapping[str, Any]):
    """The metadata, of which what is rarely asked for is computed when it is."""

    def __init__(self, views: list[tuple[Tensor, Tensor]], known: dict[str, Any]) -> None:
        self._views = views
        self._known = known
        self._names = ("radii", "means2d", "depths", *known)

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._known:
            self._known[name] = torch.stack([_of_records(name, *view) for view in self._views])
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _of_records(name: str, records: Tensor, runs: Tensor) -> Tensor:
    """Read radii, means2d or depths off one view's projected records (layout: ``kernels/cpu/splats.h``)."""
    u, v, a, _, c, lo, depth, det = records[:, :8].unbind(1)
    drawn = runs[:, 1] > 0
    if name == "radii":
        # The ellipse Q <= t reaches √(t·c/det) along x and √(t·a/det) along y.
        radii = ((lo + LOG2_255) * torch.maximum(-a, -c) / det).sqrt().ceil().clamp(1, 2**30)
        return torch.where(drawn, radii, 0).int()
    if name == "means2d":
        return torch.where(drawn[:, None], torch.stack([u, v], dim=1), 0)
    return torch.where(drawn, depth, 0)


# One camera. The last four outputs are what the backward pass needs: projected splats (N, stride), each splat's run of
# tiles (N, 2), each tile's first pair (tiles + 1), and the pairs themselves (P, 2); layouts in kernels/cpu/splats.h.
torch.library.define(
    "egregium::rasterize_splats",
    "(Tensor means, Tensor quats, Tensor scales, Tensor opacities, Tensor colors, Tensor? features, Tensor viewmat, "
    "Tensor K, Tensor? background, Tensor? mask, int width, int height, int sh_degree, float near_plane, "
    "float far_plane, float eps2d, bool antialiased, bool median) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define(
    "egregium::rasterize_splats_backward",
    "(Tensor image_gradient, Tensor? alpha_gradient, Tensor image, Tensor alpha, Tensor records, Tensor runs, "
    "Tensor tile_start, Tensor pairs, Tensor means, Tensor quats, Tensor scales, Tensor opacities, Tensor colors, "
    "Tensor? features, Tensor viewmat, Tensor K, Tensor? background, Tensor? mask, int width, int height, "
    "int sh_degree, float near_plane, float far_plane, float eps2d, bool antialiased) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def _channels(colors: Tensor, features: Tensor | None) -> int:
    return (3 if colors.ndim == 3 else colors.shape[1]) + (0 if features is None else features.shape[1])


def scene_of(tensors: list[Tensor | None], numbers: tuple[Any, ...]) -> tuple[Any, list[Tensor | None]]:
    """Return the C++ scene and the contiguous tensors it points into, which must outlive it."""
    held = [None if t is None else t.detach().contiguous() for t in tensors]
    mask = held[-1]
    if mask is not None:
        held[-1] = mask.view(torch.uint8)
    return _cpu.Scene(*held, *numbers, torch.get_num_threads()), held


@torch.library.impl("egregium::rasterize_splats", "CPU")
def _forward_cpu(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    features: Tensor | None,
    viewmat: Tensor,
    K: Tensor,
    background: Tensor | None,
    mask: Tensor | None,
    width: int,
    height: int,
    sh_degree: int,
    near_plane: float,
    far_plane: float,
    eps2d: float,
    antialiased: bool,
    median: bool,
) -> tuple[Tensor, ...]:
    scene, _held = scene_of(
        [means, quats, scales, opacities, colors, features, viewmat, K, background, mask],
        (width, height, sh_degree, near_plane, far_plane, eps2d, antialiased),
    )
    image = means.new_empty(height, width, _channels(colors, features))
    alpha = means.new_empty(height, width)
    medians = means.new_empty((height, width) if median else (0, 0), dtype=torch.int32)
    saved = _cpu.splats_forward(scene, image, alpha, medians if median else None)
    return image, alpha, medians, *(torch.from_numpy(array) for array in saved)


@torch.library.impl("egregium::rasterize_splats_backward", "CPU")
def _backward_cpu(
    image_gradient: Tensor,
    alpha_gradient: Tensor | None,
    image: Tensor,
    alpha: Tensor,
    records: Tensor,
    runs: Tensor,
    tile_start: Tensor,
    pairs: Tensor,
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    features: Tensor | None,
    viewmat: Tensor,
    K: Tensor,
    background: Tensor | None,
    mask: Tensor | None,
    width: int,
    height: int,
    sh_degree: int,
    near_plane: float,
    far_plane: float,
    eps2d: float,
    antialiased: bool,
) -> tuple[Tensor, ...]:
    scene, _held = scene_of(
        [means, quats, scales, opacities, colors, features, viewmat, K, background, mask],
        (width, height, sh_degree, near_plane, far_plane, eps2d, antialiased),
    )
    gradients = [t.new_empty(t.shape) for t in (means, quats, scales, opacities, colors)]
    feature_gradient = None if features is None else features.new_empty(features.shape)
    camera = torch.empty(16, dtype=torch.float64)
    background_gradient = torch.empty(_channels(colors, features), dtype=torch.float64)
    _cpu.splats_backward(
        scene,
        records,
        runs,
        tile_start,
        pairs,
        image,
        alpha,
        image_gradient.contiguous(),
        None if alpha_gradient is None else alpha_gradient.contiguous(),
        *gradients,
        feature_gradient,
        camera,
        background_gradient,
    )
    viewmat_gradient, K_gradient = viewmat.new_zeros(4, 4), K.new_zeros(3, 3)
    viewmat_gradient[:3, :3] = camera[:9].view(3, 3)
    viewmat_gradient[:3, 3] = camera[9:12]
    K_gradient[0, 0], K_gradient[1, 1], K_gradient[0, 2], K_gradient[1, 2] = camera[12:].float()
    if feature_gradient is None:
        feature_gradient = means.new_empty(0)
    return *gradients, feature_gradient, viewmat_gradient, K_gradient, background_gradient.float()


@torch.library.register_fake("egregium::rasterize_splats")
def _forward_fake(means: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    colors, features = rest[3], rest[4]
    width, height, median = rest[9], rest[10], rest[16]
    channels = _channels(colors, features)
    n = means.shape[0]
    tiles = ((width + 15) // 16) * ((height + 15) // 16)
    n_pairs = torch.library.get_ctx().new_dynamic_size()
    return (
        means.new_empty(height, width, channels),
        means.new_empty(height, width),
        means.new_empty((height, width) if median else (0, 0), dtype=torch.int32),
        means.new_empty(n, 16 if channels <= 8 else 32),
        means.new_empty(n, 2, dtype=torch.int32),
        means.new_empty(tiles + 1, dtype=torch.int32),
        means.new_empty(n_pairs, 2, dtype=torch.int32),
    )


@torch.library.register_fake("egregium::rasterize_splats_backward")
def _backward_fake(
    image_gradient: Tensor, alpha_gradient: Tensor | None, image: Tensor, alpha: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    means, quats, scales, opacities, colors, features, viewmat, K = rest[4:12]
    return (
        *(torch.empty_like(t) for t in (means, quats, scales, opacities, colors)),
        means.new_empty(0) if features is None else torch.empty_like(features),
        torch.empty_like(viewmat),
        torch.empty_like(K),
        image.new_empty(image.shape[2]),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    image, alpha, median, *saved = output
    ctx.mark_non_differentiable(median, *saved)
    ctx.set_materialize_grads(False)
    tensors, ctx.numbers = inputs[:10], inputs[10:17]
    ctx.save_for_backward(image, alpha, *saved, *tensors)


def _backward(ctx: Any, image_gradient: Tensor | None, alpha_gradient: Tensor | None, *_: Any) -> tuple[Any, ...]:
    image, alpha, *rest = ctx.saved_tensors
    if image_gradient is None and alpha_gradient is None:
        return (None,) * 18
    if image_gradient is None:
        image_gradient = torch.zeros_like(image)
    gradients = torch.ops.egregium.rasterize_splats_backward(
        image_gradient, alpha_gradient, image, alpha, *rest, *ctx.numbers
    )
    splats, (features, viewmat, K, background) = gradients[:5], gradients[5:]
    if rest[9] is None:
        features = None
    if rest[12] is None:
        background = None
    return *splats, features, viewmat, K, background, None, *(None,) * 8


torch.library.register_autograd("egregium::rasterize_splats", _backward, setup_context=_setup_context)
on_gpu("rasterize_splats", "rasterize_splats_backward")
