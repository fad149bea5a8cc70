"""Captures of a surface that deforms: what a folder may hold, and what does not fit together."""

import json
import shutil

import numpy as np
import pytest
from deform_scenes import HEIGHT, WIDTH, K, heard, obj_text, sheet, some_tracks, square, write_capture
from PIL import Image

from recon.capture.deform_folder import load_deform
from recon.errors import InputError
from recon.events import Events


@pytest.fixture
def root(tmp_path):
    return write_capture(tmp_path / "capture")


def load(root, events=None):
    return load_deform(root, events or Events(), root.parent / "work")


def refused(root, code) -> InputError:
    with pytest.raises(InputError) as caught:
        load(root)
    assert caught.value.code == code, caught.value
    assert caught.value.hint
    return caught.value


def change_camera(root, **fields):
    content = json.loads((root / "camera.json").read_text()) | fields
    (root / "camera.json").write_text(json.dumps({key: v for key, v in content.items() if v is not None}))


def test_a_whole_folder(root):
    events = Events()
    said = heard(events)
    capture = load(root, events)
    assert [view.name for view in capture.views] == ["rgb/9.png", "rgb/10.png", "rgb/11.png"]
    for i, view in enumerate(capture.views):
        photo = view.load()
        np.testing.assert_allclose(photo.rgb, 10 * (i + 1) / 255, atol=1e-6)
        np.testing.assert_array_equal(photo.mask, square() / 255)
        np.testing.assert_array_equal(view.camera.viewmat, np.eye(4))
        np.testing.assert_allclose(view.camera.K, K)
        assert (view.width, view.height) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(capture.K, K)
    np.testing.assert_allclose(capture.template.vertices, sheet()[0], atol=1e-7)
    np.testing.assert_allclose(capture.tracks.xy, some_tracks())
    assert (said, capture.warnings, capture.rate) == ([], (), None)


def test_only_what_is_needed(root):
    shutil.rmtree(root / "mask")
    (root / "tracks.npz").unlink()
    change_camera(root, width=None, height=None, fx=None, K=K.tolist())
    events = Events()
    said = heard(events)
    capture = load(root, events)
    assert capture.views[0].load().mask is None
    np.testing.assert_allclose(capture.views[0].camera.K, K)
    assert [warning[:13] for warning in said] == ["Without masks"]
    shutil.rmtree(root / "rgb")
    refused(root, "no-frames")
    np.savez(root / "tracks.npz", tracks=some_tracks())
    (root / "template.obj").unlink()
    assert load(root).views == ()


def test_tracks_alone(root):
    np.savez(root / "tracks.npz", tracks=some_tracks(), K=K)
    capture = load(root / "tracks.npz")
    np.testing.assert_array_equal(capture.K, K)
    assert (capture.views, capture.template) == ((), None)
    np.savez(root / "tracks.npz", tracks=some_tracks())
    refused(root / "tracks.npz", "no-camera")
    refused(root / "camera.json", "unknown-input")
    refused(root / "absent", "no-such-path")


def test_the_largest_piece_of_a_mask_counts(root):
    crumbs = square()
    crumbs[2:6, 2:6] = 255
    crumbs[62:, 70:75] = 255
    Image.fromarray(crumbs).save(root / "mask" / "10.png")
    np.testing.assert_array_equal(load(root).views[1].load().mask, square() / 255)


def test_frames_may_have_been_resampled(root):
    """The camera follows, the tracks stay in the pixels of camera.json."""
    for i in (9, 10, 11):
        Image.new("RGB", (WIDTH // 2, HEIGHT // 2)).save(root / "rgb" / f"{i}.png")
    capture = load(root)
    np.testing.assert_allclose(capture.views[0].camera.K[:2], K[:2] / 2)
    np.testing.assert_array_equal(capture.K, K)
    assert capture.views[0].load().mask.shape == (HEIGHT // 2, WIDTH // 2)
    Image.new("RGB", (WIDTH, WIDTH)).save(root / "rgb" / "10.png")
    refused(root, "size-mismatch")


def test_the_template_is_turned_with_a_warning(root):
    vertices, faces, _ = sheet()
    (root / "template.obj").write_text(obj_text(vertices * [-1, -1, 1], faces))
    capture = load(root)
    np.testing.assert_allclose(capture.template.vertices, vertices, atol=1e-7)
    assert "x and y negated" in capture.warnings[0]
    (root / "template.obj").write_text(obj_text(vertices + np.array([3, 0, 0]), faces))
    refused(root, "template-elsewhere")


def test_masks_that_do_not_fit(root):
    for i in (9, 11):
        Image.new("L", (WIDTH, HEIGHT)).save(root / "mask" / f"{i}.png")
    assert "2 of 3 masks are empty: 9.png, 11.png" in refused(root, "empty-masks").message
    Image.new("L", (HEIGHT, HEIGHT), 255).save(root / "mask" / "9.png")
    assert "9.png is 64 × 64" in refused(root, "size-mismatch").message
    (root / "mask" / "9.png").unlink()
    assert "3 frames and 2 masks" in refused(root, "mask-count").message


def test_other_things_that_do_not_fit(root):
    np.savez(root / "tracks.npz", tracks=some_tracks(4))
    assert "4 frames of 5 points, and there are 3 frames" in refused(root, "bad-tracks").message
    np.savez(root / "tracks.npz", tracks=some_tracks(), K=2 * K)
    refused(root, "bad-intrinsics")
    (root / "tracks.npz").unlink()
    for bad in ({"fx": None}, {"fx": -1}, {"fx": "wide"}, {"K": [[1, 2], [3, 4]]}, {"width": 0}):
        shutil.copy(root / "camera.json", root / "kept.json")
        change_camera(root, **bad)
        refused(root, "bad-intrinsics")
        shutil.move(root / "kept.json", root / "camera.json")
    shutil.copy(root / "template.obj", root / "template.ply")
    refused(root, "many-files")
    (root / "template.ply").unlink()
    (root / "camera.json").unlink()
    assert "no camera" in refused(root, "no-camera").message
    (root / "rgb" / "10.png").write_bytes((root / "rgb" / "10.png").read_bytes()[:60])
    assert "1 of 3 frames cannot be read: 10.png" in refused(root, "unreadable-image").message


def test_neither_template_nor_tracks(root):
    (root / "template.obj").unlink()
    (root / "tracks.npz").unlink()
    refused(root, "no-template")


@pytest.fixture
def filmed(root):
    """A folder with a video of 12 frames instead of pictures."""
    av = pytest.importorskip("av")
    shutil.rmtree(root / "rgb")
    shutil.rmtree(root / "mask")
    (root / "tracks.npz").unlink()
    noise = np.random.default_rng(0).integers(0, 40, (HEIGHT, WIDTH, 3), np.uint8)
    with av.open(str(root / "film.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=2, options={"crf": "1", "g": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(12):
            frame = av.VideoFrame.from_ndarray(noise + np.uint8(15 * i), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return root


def test_each_frame_of_a_video(filmed, limits):
    capture = load(filmed)
    assert capture.rate == 2
    brightness = [view.load().rgb.mean() * 255 for view in capture.views]
    np.testing.assert_allclose(brightness, 19.5 + 15 * np.arange(12), atol=4)
    first = capture.views[0].load
    assert [view.name for view in load(filmed).views] == [view.name for view in capture.views], "cut once"
    assert first().rgb.shape == (HEIGHT, WIDTH, 3)
    limits(max_files=11)
    shutil.rmtree(filmed.parent / "work")
    refused(filmed, "too-many-frames")
    assert not list((filmed.parent / "work").iterdir())


def test_a_video_cut_short(filmed):
    data = (filmed / "film.mkv").read_bytes()
    (filmed / "film.mkv").write_bytes(data[: len(data) // 2])
    events = Events()
    said = heard(events)
    assert 3 <= len(load(filmed, events).views) < 12
    assert any("is damaged" in warning for warning in said)
    np.savez(filmed / "tracks.npz", tracks=some_tracks(12))
    refused(filmed, "bad-tracks")
    shutil.copy(filmed / "film.mkv", filmed / "film2.mkv")
    refused(filmed, "many-videos")
    (filmed / "film2.mkv").unlink()
    (filmed / "film.mkv").write_bytes(b"")
    refused(filmed, "no-frames")


@pytest.mark.data
def test_real_cloth(shared_data, tmp_path):
    capture = load_deform(shared_data / "cloth_r1", Events(), tmp_path)
    assert len(capture.views) == 50
    (warning,) = capture.warnings
    assert "with x and y negated" in warning
    mask = capture.views[0].load().mask > 0.5
    truth = np.load(shared_data / "cloth_r1" / "ground_truth" / "000.npy") @ capture.K.T
    x, y = (truth[:, :2] / truth[:, 2:]).astype(int).T
    assert mask[y, x].mean() > 0.97
    assert mask.sum() == 175_791, "without the crumbs"
