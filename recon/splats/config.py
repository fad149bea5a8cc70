"""Settings of the ``splats`` pipeline: what the flags, the YAML file and the web form are made from."""

from __future__ import annotations

from typing import ClassVar, Literal

from recon.capture.config import PhotosConfig
from recon.config import setting

PER_PHOTO, FEWEST_STEPS = 100, 800
"""Looks at each photo that a fit takes at most, and the steps that it may take in any case. On 16 photos (``banana``)
validation photos are matched best after 60 to 80 looks, worse by 1 dB after 300."""


class SplatsConfig(PhotosConfig):
    """Photos to splats. The presets trade time for quality; measured times are in benchmarks/README.md."""

    presets: ClassVar = {
        "fast": {"steps": 1500, "splats": 50_000, "sh_degree": 2, "max_side": 512, "turntable": 60},
        "medium": {},
        "high": {"steps": 6000, "splats": 150_000, "max_side": 1200},
    }

    steps: int = setting(4000, "Steps of optimisation.", group="Fitting", ge=1, le=1_000_000)
    optimizer: Literal["adam", "block-lm", "lm", "lm-sampled"] = setting(
        "adam",
        "How steps are taken: Adam; Levenberg-Marquardt by each splat's block; Adam, then Levenberg-Marquardt over all "
        "photos; Levenberg-Marquardt over samples of them.",
        group="Fitting",
    )
    splats: int = setting(100_000, "Most splats the model may have.", group="Fitting", ge=100, le=10_000_000)
    sh_degree: int = setting(3, "Degree of the view-dependent colour: 0 is matte.", group="Fitting", ge=0, le=3)
    views_per_step: int = setting(1, "Photos that each step looks at.", group="Fitting", ge=1, le=64)
    ssim_weight: float = setting(
        0.2,
        "Share of structural similarity in the loss, the rest being the absolute error.",
        group="Fitting",
        ge=0,
        le=1,
    )
    antialiased: bool = setting(
        False, "Keep small splats from growing when seen from afar (Mip-Splatting's filter).", group="Fitting"
    )
    refine_cameras: bool = setting(False, "Let the fit correct the camera poses.", group="Fitting")
    exposure: bool = setting(
        False, "Give each photo its own brightness and tint, for automatic exposures.", group="Fitting"
    )
    mesh: bool = setting(True, "Make a mesh by fusing the splats' depth.", group="Results")
    faces: int = setting(100_000, "Most faces the mesh may have.", group="Results", ge=100, le=10_000_000)
    turntable: int = setting(120, "Frames of the turntable video; 0 for none.", group="Results", ge=0, le=2000)

    def steps_on(self, photos: int) -> int:
        """Return the steps of a fit to so many photos: with many more it would learn few photos by heart."""
        return min(self.steps, max(FEWEST_STEPS, PER_PHOTO * photos // self.views_per_step))
