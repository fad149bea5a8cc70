"""What MeshSDF is for, shown: shapes found from silhouettes and improved as bodies, through an auto-decoder's code.

    python -m benchmarks.meshsdf_demos [--steps 3000] [--out meshsdf_demos] [--write]

An auto-decoder (recon.isosurface.decoder) learns nine meshes. Then, always by Adam on the gradients of the surface that
recon.isosurface.MeshSDF extracts:

- silhouettes: from another shape's code to a shape of which only masks are known, rendered from its true mesh. The lion
  is a shape that the decoder has never seen; there the network's weights are fitted after the code as well.
- drag: that of a shape is lessened through its code, the volume and the centre of mass held.
- the same silhouettes and surfaces, but the decoder's distance multiplied by a factor that changes over space, as
  logits' slopes do: the gradient as it is, and with the normal in place of ∇s / ‖∇s‖².

Prints a JSON line a demonstration and the table; writes pictures to the folder ``--out``; ``--write`` puts the table,
with the date and the machine, into benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.meshsdf_scenes import TRAINED, UNSEEN, Cameras, picture, samples, true_shape, write_picture
from benchmarks.tables import machine, print_table, write_section
from recon.evaluate.surface import compare_surfaces
from recon.isosurface import MeshSDF
from recon.isosurface.decoder import AutoDecoder, train
from recon.isosurface.meshsdf import slopes
from recon.isosurface.objectives import pressure_drag, volume_and_centre
from recon.isosurface.view import Triangles, silhouettes

CELLS = 32
MASK = 112  # pixels, a mask's side
SHOWN = Cameras.around((35.0, 125.0), 240)
ONE, EIGHT = (35.0,), tuple(45.0 * k for k in range(8))
STEPS, RATE = 120, 0.02
PRIOR, LEAST = 0.01, 0.05
"""Of ‖code‖² at first, and the share that is left at the end: it leads through the middle of the codes, where shapes
blend."""
FRAMES = (0, STEPS // 8, STEPS // 4, STEPS // 2, STEPS)
HOLD = 50.0
STEEPNESS, DIFFERENCE = 3.0, 0.02
COLUMNS = ["demonstration", "what", "before", "after", "Chamfer %", "Chamfer % after", "Euler number", "steps", "CPU s"]

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class State:
    """A step of an optimisation, before it is taken."""

    step: int
    surface: Triangles
    value: float


def descend(
    function: Callable[[], Function],
    objective: Callable[[Triangles], Tensor],
    code: Tensor,
    groups: list[dict[str, Any]],
    unit_normals: bool = False,
) -> Iterator[State]:
    """Minimise an objective of the surface over ``groups``, the code among them; yield each step and the end."""
    layer = MeshSDF(CELLS)
    optimiser = torch.optim.Adam(groups)
    for step in range(STEPS + 1):
        shape = extract(layer, function(), unit_normals)
        value = objective(shape)
        yield State(step, Triangles(shape.vertices.detach(), shape.faces, shape.neighbors), value.item())
        if step < STEPS:
            optimiser.zero_grad()
            (value + PRIOR * max(1 - step / STEPS, LEAST) * code.square().sum()).backward()
            optimiser.step()


def extract(layer: MeshSDF, function: Function, unit_normals: bool = False) -> Triangles:
    """Return the function's surface; at will with the gradient for true distances, -n, whatever the slope is."""
    surface = layer(function)
    vertices = surface.vertices
    if unit_normals:
        value = function(vertices.detach())
        normals = normalize(slopes(vertices, function)[1], dim=1)
        vertices = vertices.detach() - normals * (value - value.detach())[:, None]
    return Triangles.of(vertices, surface.faces)


def euler(shape: Triangles) -> int:
    return len(shape.vertices) - len(shape.faces) // 2  # closed: 3 F = 2 E


def chamfer(shape: Triangles, truth: Triangles) -> float:
    """Return the Chamfer distance in per cent of the true shape's diagonal; infinite where there is no surface."""
    if len(shape.faces) == 0:
        return float("inf")
    arrays = [tensor.numpy() for tensor in (shape.vertices, shape.faces, truth.vertices, truth.faces)]
    return 100 * compare_surfaces(*arrays, samples=20_000)["chamfer_relative"]


def overlap(one: Tensor, other: Tensor) -> float:
    """Return the intersection over the union of silhouettes."""
    return (torch.minimum(one, other).sum() / torch.maximum(one, other).sum()).item()


class Demonstrations:
    """The trained decoder and what is done with it; each method adds rows and a picture."""

    def __init__(self, steps: int, folder: Path) -> None:
        self.folder = folder
        self.rows: list[list[Any]] = []
        self.truths = {name: true_shape(path) for name, path in (TRAINED | UNSEEN).items()}
        self.names = list(TRAINED)
        begun = time.process_time()
        drawn = [samples(self.truths[name]) for name in self.names]
        self.decoder = AutoDecoder(len(self.names))
        losses = train(self.decoder, torch.stack([p for p, _ in drawn]), torch.stack([d for _, d in drawn]), steps)
        self.training = f"{steps} steps, {time.process_time() - begun:.0f} CPU s, loss {np.mean(losses[-100:]):.4f}"
        print(json.dumps({"training": self.training}), flush=True)
        self.decoder.requires_grad_(False)

    def code(self, name: str) -> Tensor:
        return self.decoder.codes[self.names.index(name)].detach().clone()

    def add(self, *cells: Any) -> None:
        print(json.dumps(cells), flush=True)
        self.rows.append(list(cells))

    # --- what the decoder has learnt ---

    def learnt(self) -> None:
        rows = []
        for name in self.names:
            begun = time.process_time()
            shape = extract(MeshSDF(64), self.decoder.at(self.code(name)))
            truth, found = self.truths[name], Triangles(shape.vertices.detach(), shape.faces, shape.neighbors)
            rows.append(np.concatenate([picture(truth, SHOWN), picture(found, SHOWN)], axis=1))
            seconds = f"{time.process_time() - begun:.0f}"
            off, numbers = f"{chamfer(found, truth):.2f}", f"{euler(found)} (true: {euler(truth)})"
            self.add("decoder", name, "–", "–", "–", off, numbers, "–", seconds)
        write_picture(self.folder / "learnt.png", rows)

    # --- silhouettes ---

    def silhouettes(self, start: str, target: str, azimuths: tuple[float, ...], weights: bool = False) -> None:
        """From one shape's code to another's masks; with ``weights`` then by those of a copy of the network, too."""
        truth = self.truths[target]
        cameras = Cameras.around(azimuths, MASK)
        masks = covered(truth, cameras)
        code = self.code(start).requires_grad_()
        views = f"{len(azimuths)} view{'s' * (len(azimuths) > 1)}"
        name, groups = f"{start} → {target}, {views}", [{"params": [code], "lr": RATE}]
        self._fit("silhouettes", name, lambda: self.decoder.at(code), code, groups, masks, cameras, truth)
        if weights:
            network = AutoDecoder(len(self.names))
            network.load_state_dict(self.decoder.state_dict())
            groups = [{"params": [code], "lr": RATE / 10}, {"params": list(network.parameters()), "lr": 3e-4}]
            self._fit(
                "silhouettes", f"{name}, then weights", lambda: network.at(code), code, groups, masks, cameras, truth
            )

    def _fit(
        self,
        kind: str,
        name: str,
        function: Callable[[], Function],
        code: Tensor,
        groups: list[dict[str, Any]],
        masks: Tensor,
        cameras: Cameras,
        truth: Triangles,
        unit_normals: bool = False,
    ) -> None:
        begun = time.process_time()

        def objective(shape: Triangles) -> Tensor:
            return (covered(shape, cameras) - masks).square().mean()

        states = list(descend(function, objective, code, groups, unit_normals))
        seconds = time.process_time() - begun
        first, last = states[0].surface, states[-1].surface
        ious = [f"IoU {overlap(covered(shape, cameras), masks):.3f}" for shape in (first, last)]
        offs = [f"{chamfer(shape, truth):.2f}" for shape in (first, last)]
        self.add(kind, name, *ious, *offs, changes(states), len(states) - 1, f"{seconds:.0f}")
        label = name.partition(":")[0]
        self.film(f"{kind} {label}", [states[k].surface for k in FRAMES] + [truth])

    # --- bodies ---

    def drag(self, start: str, flow: Tensor) -> None:
        """Less drag, the volume and the centre of mass held."""
        begun = time.process_time()
        code = self.code(start).requires_grad_()
        first = extract(MeshSDF(CELLS), self.decoder.at(self.code(start)))
        drag = pressure_drag(first.vertices, first.faces, flow)
        volume, centre = volume_and_centre(first.vertices, first.faces)

        def objective(shape: Triangles) -> Tensor:
            new_volume, new_centre = volume_and_centre(shape.vertices, shape.faces)
            held = (new_volume / volume - 1).square() + (new_centre - centre).square().sum()
            return pressure_drag(shape.vertices, shape.faces, flow) / drag + HOLD * held

        states = list(descend(lambda: self.decoder.at(code), objective, code, [{"params": [code], "lr": RATE}]))
        last = states[-1].surface
        new_drag = pressure_drag(last.vertices, last.faces, flow)
        new_volume, new_centre = volume_and_centre(last.vertices, last.faces)
        moved = f"centre moved by {(new_centre - centre).norm():.3f}"
        change = f"volume {100 * (new_volume / volume - 1).item():+.1f} %, {moved}"
        cells = [f"drag {value:.3f}" for value in (drag, new_drag)]
        seconds = f"{time.process_time() - begun:.0f}"
        self.add("drag", f"{start}, {change}", *cells, "–", "–", changes(states), len(states) - 1, seconds)
        self.film(f"drag {start}", [states[k].surface for k in FRAMES])

    # --- the factor ---

    def slope(self, start: str, target: str) -> None:
        """The gradient with and without 1 / ‖∇s‖ for a field that is not a distance."""
        truth, cameras = self.truths[target], Cameras.around(EIGHT, MASK)
        masks = covered(truth, cameras)

        def field(code: Tensor) -> Function:
            return lambda points: torch.exp(STEEPNESS * points[:, 2]) * self.decoder(points, code)

        begun, code = self.code(start), self.code(start).requires_grad_()
        # Compared on a finer mesh and finer masks: at the rim of coarse triangles areas change otherwise than s does.
        layer, finer = MeshSDF(2 * CELLS, rescan=1), Cameras.around(EIGHT, 2 * MASK)
        fine_masks = covered(truth, finer)

        def compared(function: Function, unit: bool = False) -> Tensor:
            return (covered(extract(layer, function, unit), finer) - fine_masks).square().mean()

        with torch.no_grad():
            moves = DIFFERENCE * torch.eye(len(code))
            there, back = (torch.stack([compared(field(begun + d)) for d in s * moves]) for s in (1, -1))
            expected = (there - back) / (2 * DIFFERENCE)
        for name, unit in (("slope kept", False), ("unit normal", True)):
            (gradient,) = torch.autograd.grad(compared(field(code), unit), code)
            cosine = torch.cosine_similarity(gradient, expected, dim=0)
            print(json.dumps({"gradient": gradient.tolist(), "differences": expected.tolist()}), flush=True)
            figures = f"{name}: cosine {cosine:.3f}, length {gradient.norm() / expected.norm():.2f} of the differences'"
            fitted = self.code(start).requires_grad_()
            groups = [{"params": [fitted], "lr": RATE}]
            self._fit(
                "slope", figures, lambda fitted=fitted: field(fitted), fitted, groups, masks, cameras, truth, unit
            )

    def film(self, name: str, shapes: list[Triangles]) -> None:
        file = "".join(letter if letter.isalnum() else "_" for letter in name.replace("→", "to")).strip("_")
        views = [Cameras(SHOWN.viewmats[k : k + 1], SHOWN.Ks[k : k + 1], SHOWN.size) for k in range(2)]
        rows = [np.concatenate([picture(shape, view) for shape in shapes], axis=1) for view in views]
        write_picture(self.folder / f"{file}.png", rows)


def covered(shape: Triangles, cameras: Cameras) -> Tensor:
    return silhouettes(shape, cameras.viewmats, cameras.Ks, cameras.size, cameras.size)


def changes(states: list[State]) -> str:
    """Return the Euler numbers of an optimisation's surfaces, as often as they change, the middle ones counted."""
    numbers = [euler(state.surface) for state in states]
    runs = [n for k, n in enumerate(numbers) if k == 0 or n != numbers[k - 1]]
    if len(runs) > 4:
        return f"{runs[0]} … {runs[-1]} ({len(runs) - 1} changes)"
    return " → ".join(map(str, runs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000, help="of the decoder's training")
    parser.add_argument("--out", type=Path, default=Path("meshsdf_demos"))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    demonstrations = Demonstrations(arguments.steps, arguments.out)
    demonstrations.learnt()
    demonstrations.silhouettes("spot", "fish", ONE)
    demonstrations.silhouettes("spot", "fish", EIGHT)
    demonstrations.silhouettes("spot", "cat", EIGHT)
    demonstrations.silhouettes("block", "angle block", EIGHT)
    demonstrations.silhouettes("spot", "lion", EIGHT, weights=True)
    demonstrations.drag("spot", torch.tensor([0.0, 0.0, 1.0]))
    demonstrations.slope("spot", "fish")
    print_table(COLUMNS, demonstrations.rows)
    if arguments.write:
        write_section(
            "meshsdf_demos", machine(), COLUMNS, demonstrations.rows, f"\n\nTraining: {demonstrations.training}."
        )


if __name__ == "__main__":
    main()
