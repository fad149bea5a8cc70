"""The deterministic solver on curves, on cameras and points, on a surface, and where Adam stalls; no splats in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from kernels.solve_blocks import solve_blocks
from recon.solve.adam import Adam, Rule
from recon.solve.lm import LM, LMRule, Problem, Report, State
from recon.solve.robust import Huber, Loss

EXACT = LMRule(tolerance=1e-8, stagnation=0)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def descend(
    problem: Problem[State], state: State, rule: LMRule, most: int, tolerance: float = 1e-14
) -> tuple[State, list[Report]]:
    solver, reports = LM(rule), []
    for _ in range(most):
        state, report = solver.step(problem, state)
        reports.append(report)
        if report.converged(tolerance):
            break
    return state, reports


# ---- few unknowns: J written out by automatic differentiation


@dataclass
class Written:
    """A linearisation from (m, n) J."""

    J: Tensor
    residual: Tensor

    @property
    def gradient(self) -> Tensor:
        return self.J.T @ self.residual

    @property
    def diagonal(self) -> Tensor:
        return self.J.square().sum(0)

    def product(self, p: Tensor) -> Tensor:
        return self.J.T @ (self.J @ p)

    def precondition(self, r: Tensor, damping: float) -> Tensor:
        return r / (self.diagonal * (1 + damping)).clamp(min=1e-30)


@dataclass
class Curve:
    """Half the sum of the squares of ``residual`` (n,) → (m,)."""

    residual: Callable[[Tensor], Tensor]
    linearised: int = field(default=0, compare=False)

    def cost(self, state: Tensor) -> float:
        return float(self.residual(state).double().square().sum() / 2)

    def linearise(self, state: Tensor) -> Written:
        self.linearised += 1
        return Written(jacrev(self.residual)(state), self.residual(state))

    def moved(self, state: Tensor, step: Tensor) -> Tensor:
        return state + step


def valley(walls: float) -> Curve:
    """A bent valley, Rosenbrock's, whose floor is ``walls``² times flatter than its sides; the least is at (1, 1)."""
    return Curve(lambda at: torch.stack([walls * (at[1] - at[0] ** 2), 1 - at[0]]))


def test_fits_a_sum_of_exponentials() -> None:
    x = torch.linspace(0, 4, 60, dtype=torch.float64)

    def curve(at: Tensor) -> Tensor:
        return at[0] * (-at[1] * x).exp() + at[2] * (-at[3] * x).exp() + at[4]

    truth = doubles(2.0, 0.4, -1.5, 1.7, 0.3)
    found, reports = descend(Curve(lambda at: curve(at) - curve(truth)), doubles(1, 1, -1, 2, 0), LMRule(), 60)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-6)
    assert reports[-1].after < 1e-12 * reports[0].before


def test_converges_where_adam_stalls() -> None:
    """Adam at its best of many rates has forty times the steps, and decays its rate to settle."""
    start = doubles(-1.2, 1.0)
    found, reports = descend(valley(100.0), start, EXACT, 75)
    torch.testing.assert_close(found, doubles(1.0, 1.0), rtol=0, atol=1e-6)
    errors = []
    for rate in (1e-2, 3e-2, 1e-1, 3e-1, 1.0):
        at = start.float()[None]
        adam = Adam({"at": at}, {"at": Rule(torch.full((2,), rate), decay=0.1)})
        for step in range(40 * len(reports)):
            x, y = at[0].tolist()
            wall = 100 * (y - x * x)
            gradient = torch.tensor([[-200 * x * wall - (1 - x), 100 * wall]])
            adam.step({"at": gradient}, torch.tensor([True]), step / (40 * len(reports)))
        errors.append(float((at - 1).abs().max()))
    assert min(errors) > 0.1


def test_every_step_that_is_taken_lessens_the_cost() -> None:
    problem, state, solver = valley(30.0), doubles(-1.2, 1.0), LM(LMRule(damping=1e-6))
    taken = []
    for _ in range(60):
        cost = problem.cost(state)
        state, report = solver.step(problem, state)
        assert report.before == cost
        assert report.after == problem.cost(state)
        assert report.after < cost if report.accepted else report.after == cost
        taken.append((report.accepted, report.cut))
    assert (True, 0.5) in taken or (True, 0.25) in taken, "the valley's bends are met"
    assert problem.cost(state) < 1e-20


def arc() -> Curve:
    """atan x: far from 0, the Gauss–Newton step goes beyond, further than it came."""
    return Curve(lambda at: at.atan())


def test_a_step_that_is_not_taken_leaves_every_bit() -> None:
    problem, start, solver = arc(), doubles(20.0), LM(LMRule(damping=1e-2))
    copy = start.clone()
    dampings = []
    for _ in range(3):
        state, report = solver.step(problem, start)
        assert not report.accepted
        assert report.gain < 0
        assert report.after == report.before == problem.cost(copy)
        assert state is start
        assert torch.equal(start, copy)
        dampings.append(report.damping)
    assert dampings == pytest.approx([1e-2, 2e-2, 8e-2])
    assert problem.linearised == 1, "what is known of a state is not computed again"
    found, reports = descend(problem, start, LMRule(damping=1e-2), 60)
    assert abs(found) < 1e-6
    assert problem.linearised == 2 + sum(report.accepted for report in reports[:-1])


def test_resumes_bit_for_bit() -> None:
    """Also from right after a step that was not taken, whose linearisation the checkpoint does not hold."""
    for make, start, at in ((arc, doubles(20.0), 2), (lambda: valley(100.0), doubles(-1.2, 1.0), 9)):
        whole, problem, solver = start, make(), LM(LMRule(damping=1e-2))
        saved: dict[str, Tensor] = {}
        reports = []
        for step in range(16):
            if step == at:
                saved = {"at": whole.clone(), **{name: t.clone() for name, t in solver.state().items()}}
            whole, report = solver.step(problem, whole)
            reports.append(report)
        resumed, problem, solver = saved["at"], make(), LM(LMRule(damping=1e-2))
        solver.load_state(saved)
        fresh = LM(LMRule(damping=1e-2)).step(make(), resumed)[1]
        assert fresh != reports[at], "there is something to remember"
        for report in reports[at:]:
            resumed, again = solver.step(problem, resumed)
            assert again == report
        assert torch.equal(resumed, whole)


def test_says_when_it_is_there() -> None:
    """Least squares that end above zero: a gradient that vanishes, and not before."""
    x = torch.linspace(0, 1, 30, dtype=torch.float64)
    noisy = (-2 * x).exp() + 0.1 * torch.sin(40 * x)
    problem = Curve(lambda at: at[0] * (-at[1] * x).exp() - noisy)
    state, solver = doubles(5.0, 0.0), LM(LMRule(tolerance=1e-8, stagnation=0))
    for _ in range(30):
        state, report = solver.step(problem, state)
        if report.converged(1e-9):
            break
    assert report.converged(1e-9)
    assert not report.converged(0)
    assert problem.linearise(state).gradient.abs().max() < 1e-5
    slow = replace(report, damping=1e3, accepted=True, after=0.9 * report.before)
    assert replace(slow, gradient=1e-10).converged(1e-9)
    assert not replace(slow, gradient=1e-8).converged(1e-9)
    held = LM(LMRule(damping=1e9)).step(problem, doubles(5.0, 0.0))[1]
    near = problem.linearise(doubles(5.0, 0.0))
    cosines = (near.J.T @ near.residual) / (near.J.norm(dim=0) * near.residual.norm())
    assert held.gradient == pytest.approx(float(cosines.abs().max()))
    assert held.before - held.after < 1e-6 * held.before
    assert not held.converged(1e-6), "a step that damping made small says nothing"


def test_what_is_not_finite_fails_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    nan, inf = float("nan"), float("inf")
    with pytest.raises(FloatingPointError, match="cost to start from is not finite"):
        LM(LMRule()).step(arc(), doubles(nan))
    with pytest.raises(FloatingPointError, match="cost of a step is not a number"):
        LM(LMRule()).step(Curve(lambda at: torch.where(at == 3, at, nan)), doubles(3.0))
    spoilt = valley(1.0)
    monkeypatch.setattr(spoilt, "linearise", lambda state: Written(torch.full((2, 2), nan), torch.ones(2)))
    with pytest.raises(FloatingPointError, match="not finite"):
        LM(LMRule()).step(spoilt, torch.ones(2))
    walled = Curve(lambda at: torch.where(at > 1, at, inf))  # a state that is not to be is no failure
    state, report = LM(LMRule(damping=1e-9)).step(walled, doubles(3.0))
    assert report.accepted
    assert report.cut == 0.5
    assert report.gain == pytest.approx(1), "by what the model says of half the step"
    assert 1 < state < 3


def test_a_step_can_be_given_up() -> None:
    problem, left = valley(100.0), 100

    def check() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise InterruptedError

    solver, other = LM(LMRule(), check), LM(LMRule())
    state, first = solver.step(problem, doubles(-1.2, 1.0))
    again, second = other.step(problem, doubles(-1.2, 1.0))
    assert first == second
    left = 1
    with pytest.raises(InterruptedError):
        solver.step(problem, state)
    left = 100
    assert solver.step(problem, state)[1] == other.step(problem, again)[1], "it went on as if nothing had been"


@pytest.mark.parametrize("damping", [1e-6, 0.1, 10.0, 1e4])
@pytest.mark.parametrize("iterations", [1, 2, 20])
def test_the_model_is_exact_where_residuals_are_linear(damping: float, iterations: int) -> None:
    """However damped, and however early conjugate gradients stop: what is foretold comes."""
    generator = torch.Generator().manual_seed(0)
    J = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    problem = Curve(lambda at: J @ at - 1)
    rule = LMRule(damping=damping, iterations=iterations, tolerance=1e-12, stagnation=0)
    state, report = LM(rule).step(problem, torch.zeros(6, dtype=torch.float64))
    assert report.accepted
    assert report.gain == pytest.approx(1, abs=1e-9)
    if iterations == 20:
        H = J.T @ J
        exact = torch.linalg.solve(H + damping * H.diag().diag(), J.sum(0))
        torch.testing.assert_close(state, exact, rtol=1e-9, atol=1e-12)


# ---- cameras and points


@dataclass(frozen=True)
class Scene:
    """World-to-camera (C, 4, 4) poses and (P, 3) points."""

    poses: Tensor
    points: Tensor


def hat(v: Tensor) -> Tensor:
    """Return (…, 3, 3) of the cross product with (…, 3) v."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def moved(scene: Scene, step: Tensor) -> Scene:
    """Poses by the exponential map of SE(3), (v, ω) on the left; points by addition."""
    cameras = len(scene.poses)
    twists = step[: 6 * cameras].view(cameras, 6)
    generators = scene.poses.new_zeros(cameras, 4, 4)
    generators[:, :3, :3], generators[:, :3, 3] = hat(twists[:, 3:]), twists[:, :3]
    return Scene(torch.linalg.matrix_exp(generators) @ scene.poses, scene.points + step[6 * cameras :].view(-1, 3))


def upper(blocks: Tensor) -> Tensor:
    rows, columns = torch.triu_indices(blocks.shape[1], blocks.shape[1])
    return blocks[:, rows, columns].float()


@dataclass
class Bundle:
    """Perspective cameras of focal length 1 that see all points at (C, P, 2) ``seen``; nothing holds the gauge."""

    seen: Tensor

    def project(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """Return (C, P, 3) the points as the cameras have them and (C, P, 2) where they are seen."""
        local = scene.points @ scene.poses[:, :3, :3].mT + scene.poses[:, None, :3, 3]
        return local, local[..., :2] / local[..., 2:]

    def cost(self, scene: Scene) -> float:
        local, image = self.project(scene)
        return float((image - self.seen).square().sum() / 2) if (local[..., 2] > 0).all() else float("inf")

    def linearise(self, scene: Scene) -> LinearBundle:
        local, image = self.project(scene)
        depth = local[..., 2]
        zero = torch.zeros_like(depth)
        rows = [1 / depth, zero, -image[..., 0] / depth, zero, 1 / depth, -image[..., 1] / depth]
        of_local = torch.stack(rows, -1).unflatten(-1, (2, 3))
        of_poses = torch.cat([of_local, -of_local @ hat(local)], -1)
        return LinearBundle(of_poses, of_local @ scene.poses[:, None, :3, :3], image - self.seen)

    def moved(self, scene: Scene, step: Tensor) -> Scene:
        return moved(scene, step)


@dataclass
class LinearBundle:
    """J in parts: (C, P, 2, 6) by the pose, (C, P, 2, 3) by the point; (C, P, 2) the residual."""

    K: Tensor
    L: Tensor
    residual: Tensor

    def __post_init__(self) -> None:
        self.gradient = self.back(self.residual)
        self.blocks = torch.einsum("cpki,cpkj->cij", self.K, self.K), torch.einsum("cpki,cpkj->pij", self.L, self.L)
        self.diagonal = torch.cat([block.diagonal(dim1=1, dim2=2).flatten() for block in self.blocks])

    def back(self, u: Tensor) -> Tensor:
        return torch.cat(
            [torch.einsum("cpki,cpk->ci", self.K, u).flatten(), torch.einsum("cpki,cpk->pi", self.L, u).flatten()]
        )

    def product(self, p: Tensor) -> Tensor:
        cut = 6 * len(self.K)
        twists, shifts = p[:cut].view(-1, 6), p[cut:].view(-1, 3)
        return self.back(torch.einsum("cpki,ci->cpk", self.K, twists) + torch.einsum("cpki,pi->cpk", self.L, shifts))

    def precondition(self, r: Tensor, damping: float) -> Tensor:
        cut = 6 * len(self.K)
        parts = r[:cut].view(-1, 6).float(), r[cut:].view(-1, 3).float()
        solved = [solve_blocks(upper(H), part, damping) for H, part in zip(self.blocks, parts, strict=True)]
        return torch.cat([part.flatten() for part in solved]).to(r)


def bundle() -> tuple[Bundle, Scene, Scene]:
    """Return the problem, a perturbed start and the truth."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(50, 3, generator=generator, dtype=torch.float64) * 2 - 1
    poses = torch.eye(4, dtype=torch.float64).repeat(8, 1, 1)
    poses[:, 2, 3] = 5
    turns = torch.zeros(8, 6, dtype=torch.float64)
    turns[:, 4] = torch.linspace(-0.8, 0.8, 8)
    turns[:, 3] = 0.3 * torch.randn(8, generator=generator, dtype=torch.float64)
    none = torch.zeros(150, dtype=torch.float64)
    turned = moved(Scene(torch.eye(4, dtype=torch.float64).repeat(8, 1, 1), points), torch.cat([turns.flatten(), none]))
    truth = Scene(poses @ turned.poses, points)
    problem = Bundle(torch.zeros(()))
    problem.seen = problem.project(truth)[1]
    shake = torch.cat([torch.full((48,), 0.1), torch.full((150,), 0.3)])
    return problem, moved(truth, shake * torch.randn(198, generator=generator, dtype=torch.float64)), truth


def test_adjusts_cameras_and_points() -> None:
    problem, start, truth = bundle()
    copy = Scene(start.poses.clone(), start.points.clone())
    found, reports = descend(problem, start, LMRule(), 9)
    assert reports[0].before > 1
    assert reports[-1].after < 1e-16 * reports[0].before
    ratio = torch.pdist(found.points) / torch.pdist(truth.points)
    assert ratio.std() < 1e-6 * ratio.mean(), "the scene is the true one, up to where it is and its size"
    rotations = found.poses[:, :3, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3, dtype=torch.float64).expand(8, 3, 3))
    assert torch.equal(start.poses, copy.poses)
    assert torch.equal(start.points, copy.points)


def test_the_same_run_twice_is_the_same_bit_for_bit() -> None:
    runs = [descend(*bundle()[:2], LMRule(), 6) for _ in range(2)]
    assert runs[0][1] == runs[1][1]
    assert torch.equal(runs[0][0].poses, runs[1][0].poses)
    assert torch.equal(runs[0][0].points, runs[1][0].points)


def test_the_preconditioner_is_told_the_damping() -> None:
    problem, start, _ = bundle()
    far = LMRule(damping=1e3, tolerance=1e-4, stagnation=0)
    counts = []
    for aware in (True, False):
        near = problem.linearise(start)
        told = near.precondition
        near.precondition = lambda r, damping, told=told, aware=aware: told(r, damping if aware else 1e-6)
        problem.linearise = lambda scene, near=near: near
        counts.append(LM(far).step(problem, start)[1].iterations)
    assert counts[0] <= 3
    assert counts[1] > 3 * counts[0]


# ---- a surface


@dataclass
class Sheet:
    """Heights (n,) over a grid that samples ``given`` (m,) at A (m, n), kept smooth by B (k, n); both are sparse."""

    A: Tensor
    B: Tensor
    given: Tensor
    loss: Loss

    def cost(self, heights: Tensor) -> float:
        misfit = self.loss.value(self.A @ heights - self.given)
        return float(misfit.sum(dtype=torch.float64) + (self.B @ heights).square().sum(dtype=torch.float64) / 2)

    def linearise(self, heights: Tensor) -> LinearSheet:
        residual = torch.cat([self.A @ heights - self.given, self.B @ heights])
        weights = torch.cat([self.loss.weight(residual[: len(self.given)]), torch.ones(len(self.B))])
        return LinearSheet(torch.cat([self.A, self.B]).coalesce(), weights, residual)

    def moved(self, heights: Tensor, step: Tensor) -> Tensor:
        return heights + step


@dataclass
class LinearSheet:
    J: Tensor
    weights: Tensor
    residual: Tensor

    def __post_init__(self) -> None:
        self.gradient = self.J.T @ (self.weights * self.residual)
        self.diagonal = (self.J * self.J).T @ self.weights

    def product(self, p: Tensor) -> Tensor:
        return self.J.T @ (self.weights * (self.J @ p))

    def precondition(self, r: Tensor, damping: float) -> Tensor:
        return r / (self.diagonal * (1 + damping))


def test_fits_a_surface_to_samples_some_of_which_are_wrong() -> None:
    """In float32, as fits are; a sixth of the samples is off by far."""
    side, many = 20, 2000
    generator = torch.Generator().manual_seed(2)
    axis = torch.linspace(0, 3, side)
    truth = (axis[:, None].sin() * (2 * axis).cos()).flatten()
    corner = torch.randint(side - 1, (many, 2), generator=generator)
    x, y = torch.rand(2, many, generator=generator)
    first = corner[:, 0] * side + corner[:, 1]
    columns = torch.stack([first, first + 1, first + side, first + side + 1], 1)
    shares = torch.stack([(1 - x) * (1 - y), (1 - x) * y, x * (1 - y), x * y], 1)
    A = sparse(columns, shares, side * side)
    grid = torch.arange(side * side).view(side, side)
    bends = torch.cat([lines.unfold(1, 3, 1).flatten(0, 1) for lines in (grid, grid.T)])
    B = sparse(bends, 0.3 * torch.tensor([1.0, -2, 1]).expand(len(bends), 3), side * side)
    given = A @ truth + 0.02 * torch.randn(many, generator=generator)
    wrong = torch.rand(many, generator=generator) < 1 / 6
    given += torch.where(wrong, 3 * torch.rand(many, generator=generator), 0)
    errors = []
    for loss in (Huber(0.03), Huber(1e3)):
        problem = Sheet(A, B, given, loss)
        found, reports = descend(problem, torch.zeros(side * side), LMRule(), 60, 1e-6)
        assert found.dtype == torch.float32
        assert all(report.after <= report.before for report in reports)
        assert reports[-1].converged(1e-6)
        assert reports[-1].gradient < 1e-3
        errors.append(float((found - truth).square().mean().sqrt()))
    assert errors[0] < 0.04
    assert errors[0] < 0.2 * errors[1]


def sparse(columns: Tensor, values: Tensor, width: int) -> Tensor:
    """Return (m, width) rows of a few ``values`` (m, k) at ``columns`` (m, k)."""
    rows = torch.arange(len(columns))[:, None].expand_as(columns)
    indices = torch.stack([rows.flatten(), columns.flatten()])
    return torch.sparse_coo_tensor(indices, values.flatten(), (len(columns), width), check_invariants=True).coalesce()
