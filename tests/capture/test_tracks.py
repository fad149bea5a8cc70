"""Point tracks in files: what is taken, and what is wrong with the rest."""

import numpy as np
import pytest
from deform_scenes import HEIGHT, WIDTH, K, some_tracks

from recon.capture.tracks import read_tracks
from recon.errors import InputError

SIZE = (WIDTH, HEIGHT)


@pytest.fixture
def written(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "tracks.npz", **arrays)
        return tmp_path / "tracks.npz"

    return write


def refused(path, size=None, frames=None) -> InputError:
    with pytest.raises(InputError) as caught:
        read_tracks(path, size, frames)
    assert str(path) in caught.value.message
    assert caught.value.hint
    return caught.value


def test_whole_tracks(written):
    xy = some_tracks(4, 6).astype(np.float32)
    seen = np.random.default_rng(1).random((4, 6)) > 0.2
    tracks = read_tracks(written(tracks=xy, visible=seen, K=K), SIZE, 4)
    np.testing.assert_array_equal(tracks.visible, seen)
    np.testing.assert_array_equal(tracks.xy, np.where(seen[..., None], xy, 0).astype(np.float64))
    np.testing.assert_array_equal(tracks.K, K)
    assert tracks.warnings == ()
    bare = read_tracks(written(tracks=xy))
    assert bare.visible.all()
    assert bare.K is None


def test_lost_points_are_invisible(written):
    xy = some_tracks(4, 6)
    xy[1, 2], xy[2, 0, 1], xy[3, 5] = np.nan, np.inf, (500, 40)
    seen = np.ones((4, 6))
    seen[2, 0] = np.nan  # said to be lost, so nothing to warn of
    tracks = read_tracks(written(tracks=xy, visible=seen), SIZE)
    assert sorted(zip(*(~tracks.visible).nonzero(), strict=True)) == [(1, 2), (2, 0), (3, 5)]
    assert np.isfinite(tracks.xy).all()
    assert [warning.split(": ")[1].split(",")[0] for warning in tracks.warnings] == [
        "1 of 24 tracked places are at NaN or infinity",
        "1 of 24 tracked places are outside of the image",
    ]
    assert "from frame 3 on" in tracks.warnings[1]


def test_points_just_outside_count(written):
    """A tenth of the image's sides."""
    xy = some_tracks(2, 3)
    xy[0, 0], xy[0, 1] = (WIDTH + 9, HEIGHT + 6), (WIDTH + 10, 10)
    assert read_tracks(written(tracks=xy), SIZE).visible[0].tolist() == [True, False, True]


def test_a_frame_without_points_is_warned_of(written):
    xy = some_tracks(4, 6)
    xy[2] = np.nan
    assert "no point is visible in 1 of 4 frames, 2 first" in read_tracks(written(tracks=xy)).warnings[-1]
    xy[0] = np.nan
    error = refused(written(tracks=xy))
    assert error.code == "no-tracks"
    assert "first frame" in error.message
    assert "any frame" in refused(written(tracks=np.full((4, 6, 2), np.nan))).message
    assert refused(written(tracks=some_tracks(), visible=np.zeros((3, 5), bool))).code == "no-tracks"


def test_axes_in_each_others_place(written):
    xy = some_tracks(3, 5)
    error = refused(written(tracks=xy.transpose(1, 0, 2)), SIZE, 3)
    assert error.code == "bad-tracks"
    assert "5 frames of 3 points, and there are 3 frames" in error.message
    assert "transpose" in error.hint
    assert "transpose" in refused(written(tracks=xy.transpose(1, 0, 2), visible=np.ones((3, 5)))).hint
    error = refused(written(tracks=xy[..., ::-1]), SIZE)
    assert error.code == "swapped-tracks"
    assert "x and y" in error.message


def test_other_faults(written, tmp_path):
    for bad in (np.zeros((3, 5)), np.zeros((3, 5, 3)), np.zeros((0, 5, 2)), np.full((3, 5, 2), "a"), np.array(1.0)):
        assert refused(written(tracks=bad)).code == "bad-tracks"
    assert "7 frames" in refused(written(tracks=some_tracks(3)), None, 7).message
    assert refused(written(tracks=some_tracks(), visible=np.ones((3, 4)))).code == "bad-tracks"
    error = refused(written(points=np.zeros((3, 5, 2)), other=np.zeros(1)))
    assert "no array 'tracks', but points, other" in error.message
    for bad in (np.eye(4), K.T, -K, np.where(K == 0, np.nan, K), np.full((3, 3), "a")):
        assert refused(written(tracks=some_tracks(), K=bad)).code == "bad-intrinsics"
    pickled = np.array([[[{}, {}]]], object)
    assert refused(written(tracks=pickled)).code == "broken-file"
    path = written(tracks=some_tracks())
    for content in (b"no zip", b"", path.read_bytes()[:-30], path.read_bytes()[:200]):
        (tmp_path / "b.npz").write_bytes(content)
        assert refused(tmp_path / "b.npz").code == "broken-file"


@pytest.mark.data
@pytest.mark.parametrize("name", ["kinectPaper", "hulk"])
def test_real_tracks(shared_data, name):
    tracks = read_tracks(shared_data / "isometric_tracks" / f"{name}.npz")
    assert tracks.xy.shape == (10, {"kinectPaper": 90, "hulk": 73}[name], 2)
    assert tracks.K is not None
