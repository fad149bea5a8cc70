from __future__ import annotations

import torch

from recon.solve.adam import Adam, Rule


def line() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1, 1, 50)
    return x, 2 * x - 0.5


def test_fits_a_line() -> None:
    x, y = line()
    parameters = {"line": torch.zeros(1, 2)}
    optimiser = Adam(parameters, {"line": Rule(torch.tensor([0.1, 0.1]), decay=0.01)})
    for step in range(300):
        slope, offset = parameters["line"][0]
        error = slope * x + offset - y
        gradient = torch.stack([(error * x).mean(), error.mean()])[None]
        optimiser.step({"line": gradient}, torch.tensor([True]), step / 300)
    torch.testing.assert_close(parameters["line"][0], torch.tensor([2.0, -0.5]), atol=1e-3, rtol=0)


def test_a_new_row_steps_as_a_fresh_fit_does() -> None:
    """The first step of Adam is the rate itself, for a row that joins after a hundred steps as well."""
    parameters = {"p": torch.zeros(2, 1)}
    optimiser = Adam(parameters, {"p": Rule(torch.tensor([0.1]))})
    for _ in range(100):
        optimiser.step({"p": torch.ones(2, 1)}, torch.tensor([True, True]), 0.0)
    grown = {"p": torch.cat([parameters["p"], torch.zeros(1, 1)])}
    optimiser.replace(grown, torch.tensor([0, 1, -1]))
    optimiser.step({"p": torch.full((3, 1), 3.0)}, torch.ones(3, dtype=torch.bool), 0.0)
    torch.testing.assert_close(grown["p"][2], torch.tensor([-0.1]), atol=1e-5, rtol=0)


def test_rows_that_sit_out_keep_their_place() -> None:
    parameters = {"p": torch.zeros(2, 3)}
    optimiser = Adam(parameters, {"p": Rule(torch.full((3,), 0.1))})
    optimiser.step({"p": torch.ones(2, 3)}, torch.tensor([True, False]), 0.0)
    assert parameters["p"][0].abs().min() > 0
    assert parameters["p"][1].abs().max() == 0


def test_state_brings_back_the_same_steps() -> None:
    def steps(optimiser: Adam, parameters: dict[str, torch.Tensor], first: int, last: int) -> None:
        for k in range(first, last):
            gradient = torch.randn(4, 2, generator=torch.Generator().manual_seed(k))
            optimiser.step({"p": gradient}, torch.ones(4, dtype=torch.bool), k / 10)

    rules = {"p": Rule(torch.tensor([0.1, 0.2]), decay=0.1)}
    whole = {"p": torch.zeros(4, 2)}
    steps(Adam(whole, rules), whole, 0, 10)
    half = {"p": torch.zeros(4, 2)}
    before = Adam(half, rules)
    steps(before, half, 0, 5)
    after = Adam(half, rules)
    after.load_state({name: t.clone() for name, t in before.state().items()})
    steps(after, half, 5, 10)
    assert torch.equal(whole["p"], half["p"])


def test_a_step_of_a_few_rows_is_that_step():
    values = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
    whole, few = values.clone(), values.clone()
    rule = {"x": Rule(torch.tensor([0.1, 0.2]), 0.1, 0.15)}
    adams = Adam({"x": whole}, rule), Adam({"x": few}, rule)
    for step in range(3):
        gradient = torch.randn(6, 2, generator=torch.Generator().manual_seed(step))
        touched = torch.tensor([True, False, step > 0, True, False, step == 1])
        rows = touched.nonzero()[:, 0]
        adams[0].step({"x": gradient}, touched, step / 3)
        adams[1].step_rows({"x": gradient[rows]}, rows, step / 3)
    assert torch.equal(whole, few)
    assert all(torch.equal(a, b) for a, b in zip(adams[0].state().values(), adams[1].state().values(), strict=True))
