from __future__ import annotations

import pytest

from kernels import selftest
from kernels.gpu import OPERATORS


def test_all_is_right_and_every_operator_is_asked() -> None:
    checks = selftest.self_test()
    assert [check for check in checks if not check.passed] == []
    assert max(check.off for check in checks) < 1e-5
    asked = {check.name for check in checks}
    products = {"splat_vjp", "splat_jvp", "splat_gauss_newton", "splat_blocks"}
    parts = {"cell_samples": "dual_contour", "block_step": "solve_blocks", "move_splats": "adam_step"}
    names = {name.removesuffix("_backward") for name in OPERATORS} - products
    assert {parts.get(name, name) for name in names} <= asked


@pytest.mark.gpu
def test_all_is_right_on_a_gpu() -> None:
    assert [check for check in selftest.self_test("cuda") if not check.passed] == []


def test_what_is_wrong_or_does_not_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    right = selftest.nearest

    def wrong(*arguments: object) -> tuple[object, ...]:
        squared, *rest = right(*arguments)
        return 1.01 * squared, *rest

    def broken(*arguments: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(selftest, "nearest", wrong)
    monkeypatch.setattr(selftest, "ssim", broken)
    failed = {check.name: check for check in selftest.self_test() if not check.passed}
    assert set(failed) == {"nearest", "ssim"}
    assert failed["nearest"].off == pytest.approx(0.01, rel=1e-3)
    assert failed["ssim"].error == "RuntimeError: no kernel image is available"
