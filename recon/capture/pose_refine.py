"""The lens, once the poses are known: COLMAP's OPENCV model where one radial term does not do.

Mapping starts with one radial term because eight parameters go astray while photos are few. A real lens needs more: on
renderings through a phone's or an action camera's distortion, poses by one term are 0.3° off, and after this step
0.003° to 0.09°. On photos without distortion the error does not fall, and the simple model stays.
"""

from __future__ import annotations

import copy

import pycolmap

from recon.events import Events

MIN_GAIN = 0.02
"""By how much, relatively, the mean reprojection error must fall."""

_MIN_IMAGES = 3  # per camera
_CHUNK, _CHUNKS = 3, 20  # iterations between two looks at whether to stop; COLMAP holds Python's lock meanwhile


def refine_lens(model: pycolmap.Reconstruction, events: Events) -> pycolmap.Reconstruction:
    """Return ``model`` after bundle adjustment with OPENCV cameras (k1, k2, p1, p2; fx, fy), or itself without gain.

    Cameras of fewer than three images, and of other models than SIMPLE_RADIAL, keep their model.
    """
    refined = copy.deepcopy(model)
    images = [refined.image(i) for i in refined.reg_image_ids()]
    for number, camera in refined.cameras.items():
        if camera.model.name == "SIMPLE_RADIAL" and sum(i.camera_id == number for i in images) >= _MIN_IMAGES:
            f, cx, cy, k = camera.params
            camera.model = pycolmap.CameraModelId.OPENCV
            camera.params = [f, f, cx, cy, k, 0, 0, 0]
    config = pycolmap.BundleAdjustmentConfig()
    for image in images:
        config.add_image(image.image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.ceres.solver_options.num_threads = 1  # more give other sums each time
    options.ceres.solver_options.max_num_iterations = _CHUNK
    for _ in range(_CHUNKS):
        events.check()
        summary = pycolmap.create_default_bundle_adjuster(options, config, refined).solve()
        if summary.termination_type != pycolmap.BundleAdjustmentTerminationType.NO_CONVERGENCE:
            break
    if not summary.is_solution_usable():
        return model
    refined.update_point_3d_errors()
    gained = refined.compute_mean_reprojection_error() < (1 - MIN_GAIN) * model.compute_mean_reprojection_error()
    return refined if gained else model
