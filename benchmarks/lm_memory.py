"""Memory of an iteration of PCG-LM over all photos: nerf_chair at 400 pixels, 200,000 splats.

    python -m benchmarks.lm_memory [--splats 200000] [--write]

The peak of this process in all, and what of it was there before the iteration began.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.fitting import prepare
from benchmarks.memory import peak_bytes
from benchmarks.splat_rates import CAPTURES
from benchmarks.tables import machine, print_table, write_section
from recon.splats.config import SplatsConfig
from recon.splats.lm_fit import LMFit

COLUMNS = ["splats", "photos", "seconds an iteration", "peak before GB", "peak GB", "limit GB"]
LIMIT = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splats", type=int, default=200_000)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    # Points within the hull are a quarter of the budget.
    chosen = {"max_side": 400, "steps": 100_000, "splats": 4 * arguments.splats}
    with tempfile.TemporaryDirectory() as folder:
        start = prepare(
            CAPTURES["nerf_chair"], SplatsConfig(**{**SplatsConfig.presets["fast"], **chosen}), Path(folder)
        )
    model = start.fit(LMFit)
    model.step = 90_000  # within the part that is LM's, at full size and degree
    before, begun = peak_bytes() / 1e9, time.perf_counter()
    next(model.run())
    seconds = round(time.perf_counter() - begun)
    row = [len(model.splats), len(model.photos), seconds, round(before, 2), round(peak_bytes() / 1e9, 2), LIMIT]
    print_table(COLUMNS, [row])
    if arguments.write:
        write_section("lm_memory", machine(), COLUMNS, [row])


if __name__ == "__main__":
    main()
