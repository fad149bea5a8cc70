"""How good a reconstruction is, and showing it: metrics, pictures, the turntable and the report."""

from recon.evaluate.metrics import psnr, ssim
from recon.evaluate.previews import compare_strip, error_map, save_picture
from recon.evaluate.report import Deformation, HeldOutView, ReportData, write_report
from recon.evaluate.turntable import turntable_cameras
from recon.evaluate.video import write_video

__all__ = [
    "Deformation",
    "HeldOutView",
    "ReportData",
    "compare_strip",
    "error_map",
    "psnr",
    "save_picture",
    "ssim",
    "turntable_cameras",
    "write_report",
    "write_video",
]
