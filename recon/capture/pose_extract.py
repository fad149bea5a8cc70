"""SIFT features of pictures, in a process of its own: COLMAP cannot be stopped within a picture, a process can.

``python -m recon.capture.pose_extract JSON`` is the other side of :func:`extract_features`. It ends when its standard
input closes, so that it never outlives whoever started it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pycolmap

from recon.capture.pose_run import Meter, quiet_pycolmap, threads
from recon.errors import ReconstructionError
from recon.events import Events

MAX_FEATURES = 8192
"""Features per picture at most. On 16 photos of a banana on a carpet 4096 broke the model in two."""
CAMERA_MODEL = "SIMPLE_RADIAL"
"""f, cx, cy and one radial term: more parameters go astray while photos are few (pose_refine.py adds them)."""


def extract_features(database: Path, pictures: Path, masks: Path, robust: bool, events: Events) -> None:
    """Extract SIFT features of the pictures that have none yet.

    Args:
        database: with all the pictures.
        pictures: their folder.
        masks: the folder of the masks; a picture without one is used whole.
        robust: estimate affine shapes and pool over domain sizes (Dong and Soatto 2015, "Domain-size pooling in local
            descriptors"): four times slower, and finds matches across wider baselines.
        events: progress and cancellation.

    Raises:
        Cancelled: at once; what was extracted is kept.
        ReconstructionError: COLMAP failed.
    """
    task = json.dumps([str(database), str(pictures), str(masks), robust])
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    log = database.with_name("features.log")
    # Never Python's own sqlite3: beside COLMAP's it would break the file's locks and then the file.
    with pycolmap.Database.open(database) as db, log.open("wb") as errors:
        ids = [image.image_id for image in db.read_all_images()]
        before = sum(map(db.exists_descriptors, ids))
        meter = Meter(events, "extracted", len(ids), before)
        if before == len(ids):
            meter(before)
            return
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, task],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for us
        )
        with process:
            try:
                while process.poll() is None:
                    events.check()
                    meter(sum(map(db.exists_descriptors, ids)))
                    _wait(process)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            reason = log.read_text(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
            raise ReconstructionError(
                f"Extracting features failed: {reason[-1]}", "Check that memory and disk suffice.", "poses-failed"
            )
        meter(len(ids))


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(0.25)
    except subprocess.TimeoutExpired:
        return


def _main() -> None:
    def end_with_parent() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    quiet_pycolmap()
    database, pictures, masks, robust = json.loads(sys.argv[1])
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = CAMERA_MODEL
    if any(Path(masks).iterdir()):
        reader.mask_path = masks
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads, options.use_gpu = threads(), False
    options.sift.max_num_features = MAX_FEATURES
    options.sift.estimate_affine_shape = options.sift.domain_size_pooling = robust
    pycolmap.extract_features(
        database, pictures, reader_options=reader, extraction_options=options, device=pycolmap.Device.cpu
    )


if __name__ == "__main__":
    _main()
