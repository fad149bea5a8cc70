"""Films of a moving surface: over the photos where the camera sees it, from the side at one scale in all frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sheets import flat

from benchmarks.bent_sheets import folded, nodes
from recon.capture.capture import Camera, Photo, View
from recon.capture.tracks import Tracks
from recon.deform.sheet import grid_faces
from recon.mesh import film
from recon.mesh.animation import Animation
from recon.mesh.drawing import grid_of
from recon.mesh.film import film_window, overlay, seen, side
from recon.mesh.mesh import Mesh

K = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
GROUND = 245  # of a picture without a photo
CORNERS = np.array([[-1, -1, 4], [1, -1, 4], [1, 1, 4], [-1, 1, 4]], np.float32)
FACES = np.array([[0, 2, 1], [0, 3, 2]], np.int32)  # seen from the camera at the origin they wind counter-clockwise


@pytest.fixture(autouse=True)
def small_films(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "LONGEST_SIDE", 240)


def moving(*frames: np.ndarray, faces: np.ndarray = FACES, **looks: np.ndarray) -> Animation:
    return Animation(Mesh(frames[0], faces, **looks), np.stack(frames).astype(np.float32), 10.0)


def photos(rgb: np.ndarray, count: int = 1) -> tuple[View, ...]:
    height, width = rgb.shape[:2]
    camera = Camera(np.eye(4), K, width, height)
    return tuple(View(f"{i}.png", width, height, lambda: Photo(rgb), camera) for i in range(count))


def surroundings(frame: np.ndarray, ground: int = GROUND) -> tuple[int, int, int, int]:
    """Return the first and last column and row of what is not the ground."""
    rows, columns = np.nonzero((frame != ground).any(axis=2))
    return columns.min(), columns.max(), rows.min(), rows.max()


def test_a_square_covers_the_pixels_that_the_camera_sees_it_in() -> None:
    """At 25 pixels a unit it spans 25 to 75 and 15 to 65; around it are 15 % of 50 pixels, and 240 in all."""
    (frame,) = overlay(moving(CORNERS), CORNERS, K)
    assert (frame.shape, frame.dtype) == ((240, 240, 3), np.uint8)
    first, last = 7.5 * 240 / 65, 57.5 * 240 / 65
    assert surroundings(frame) == pytest.approx((first, last, first, last), abs=1)


def test_over_a_photo_the_surface_is_half_transparent_and_nothing_else_changes() -> None:
    """The window is 17 to 83 and 7 to 73, enlarged to twice its pixels: the square from 16 to 116 of 132."""
    rgb = np.zeros((80, 100, 3), np.float32)
    rgb[:, 50:] = (1, 0, 0)
    (frame,) = overlay(moving(CORNERS), CORNERS, K, photos(rgb))
    assert frame.shape == (132, 132, 3)
    outside = np.ones((132, 132), bool)
    outside[16:116, 16:116] = False
    expected = np.zeros((132, 132, 3))
    expected[:, 66:] = (255, 0, 0)
    outside[:, 65:67] = False  # the photo is enlarged
    assert np.abs(frame - expected)[outside].max() <= 1
    left, right = frame[20:112, 20:60].astype(float), frame[20:112, 72:112].astype(float)
    assert left.mean(axis=(0, 1)).min() > 20, "the surface is seen on black"
    assert right[..., 0].mean() - left[..., 0].mean() > 100, "the photo is seen through it"
    assert np.ptp(left[..., 0]) > 100, "the grid is drawn on it"


def test_photos_of_another_size_show_the_same() -> None:
    rgb = np.zeros((80, 100, 3), np.float32)
    rgb[:, 50:] = (1, 0, 0)
    views = photos(rgb) + photos(rgb[::2, ::2].copy())
    whole, half = (frame.astype(int) for frame in overlay(moving(CORNERS, CORNERS), CORNERS, K, views))
    differ = np.abs(whole - half).max(axis=(0, 2)) > 1
    assert set(np.flatnonzero(differ)) <= set(range(60, 72)), "but where two colours meet, enlarged"


def test_the_grid_has_its_lines_at_equal_distances_on_the_template() -> None:
    (frame,) = overlay(moving(CORNERS), CORNERS, K)
    first, last, top, _ = surroundings(frame)
    row = frame[top + 5, first : last + 1, 0].astype(int)  # between two of the 17 lines
    lines = np.flatnonzero((row[1:-1] > row[:-2]) & (row[1:-1] >= row[2:])) + 1
    assert len(lines) in (15, 16, 17), "the outermost lie half on the border"
    np.testing.assert_allclose(np.diff(lines), (last - first) / 16, atol=1.5)


def test_the_grid_lies_along_the_sides_of_a_sheet() -> None:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    ends = np.array([[0, 0, 0], [4, 0, 0], [0, 2, 0], [4, 2, 0]]) @ turn + [3, -2, 5]
    grid = grid_of(ends)
    np.testing.assert_allclose(grid, np.round(grid), atol=1e-5)
    assert sorted(np.ptp(grid, axis=0).round(3).tolist()) == [8, 16]


def test_points_are_drawn_where_they_are_visible() -> None:
    """The tracks' pixels are half as large as the photos'."""
    half = np.diag([0.5, 0.5, 1]) @ K
    tracks = Tracks(np.array([[[21.0, 22.0], [29.0, 22.0], [1e9, -1e9]]]), np.array([[True, False, True]]), half)
    (frame,) = overlay(moving(CORNERS), CORNERS, half, photos(np.zeros((80, 100, 3), np.float32)), tracks)
    x, y = 2 * (2 * np.array([21, 22]) - [17, 7])  # the window begins at 17, 7 and is twice as large
    assert np.abs(frame[y - 1 : y + 1, x - 1 : x + 1].astype(int) - (255, 196, 0)).max() <= 8
    yellow = (frame[..., 0] > 200) & (frame[..., 2] < 60)
    rows, columns = np.nonzero(yellow)
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((x, y), abs=0.1)


def test_all_frames_have_one_window_that_all_lie_in() -> None:
    right = CORNERS + np.array([1, 0, 0], np.float32)
    frames = list(overlay(moving(CORNERS, right, CORNERS), CORNERS, K))
    np.testing.assert_array_equal(frames[0], frames[2])
    first, second = surroundings(frames[0]), surroundings(frames[1])
    scale = (first[1] - first[0]) / 50
    assert np.subtract(second, first) == pytest.approx([25 * scale, 25 * scale, 0, 0], abs=1.5)


def test_from_the_side_depth_is_seen_at_one_scale() -> None:
    """One unit of depth is sin 60° to the right, where the sheet's two units of width are 2 cos 60°."""
    away = CORNERS + np.array([0, 0, 1], np.float32)
    frames = list(side(moving(CORNERS, away, CORNERS), CORNERS, 400, 300))
    np.testing.assert_array_equal(frames[0], frames[2])
    near, far = surroundings(frames[0]), surroundings(frames[1])
    pixels = 0.9 * 300 / 2
    assert near[3] - near[2] == pytest.approx(2 * pixels, abs=1.5)
    assert near[1] - near[0] == pytest.approx(2 * 0.5 * pixels, abs=1.5)
    assert np.subtract(far, near) == pytest.approx([np.sqrt(0.75) * pixels] * 2 + [0, 0], abs=1.5)
    assert (near[0], 399 - far[1]) == pytest.approx([(400 - (1 + np.sqrt(0.75)) * pixels) / 2] * 2, abs=1.5)


def test_a_fold_is_seen_by_its_shade() -> None:
    uv = nodes()
    ahead, faces = np.array([0, 0, 500]), grid_faces(20, 15).astype(np.int32)

    def shades(points: np.ndarray) -> np.ndarray:
        mesh = Mesh(points.astype(np.float32), faces)
        image = seen(mesh, Camera(np.eye(4), 5 * K, 500, 400)).numpy()
        return image[200, [200, 290], 0]

    assert shades(flat(uv) + ahead)[0] == pytest.approx(shades(flat(uv) + ahead)[1], abs=1e-3)
    assert abs(np.subtract(*shades(folded(uv, 1.2) + ahead))) > 0.05


def test_from_the_side_a_surface_has_its_own_colours() -> None:
    texture = np.broadcast_to(np.array([1, 0, 0], np.float32), (4, 4, 3)).copy()
    uvs = CORNERS[FACES][..., :2] / 2 + 0.5
    painted: list[dict[str, np.ndarray]] = [
        {"texture": texture, "uvs": uvs},
        {"colours": np.broadcast_to(np.array([1, 0, 0], np.float32), (4, 3)).copy()},
    ]
    for looks in painted:
        (frame,) = side(moving(CORNERS, **looks), CORNERS, 200, 200)
        middle = frame[80:120, 95:105].astype(int)
        assert middle[..., 0].min() > 150
        assert middle[..., 1:].max() <= 1, "no grid over it"


def test_a_sheet_looks_the_same_however_it_winds() -> None:
    animation, other = moving(CORNERS), moving(CORNERS, faces=FACES[:, ::-1].copy())
    for filmed in (lambda a: overlay(a, CORNERS, K), lambda a: side(a, CORNERS, 200, 200)):
        np.testing.assert_allclose(next(filmed(animation)), next(filmed(other)), atol=1)
    back = CORNERS * np.array([-1, 1, 1], np.float32)  # a later frame shows its other side
    blue = [frame[75:150, 75:150, 2].mean() for frame in overlay(moving(CORNERS, back), CORNERS, K)]
    assert blue[0] - blue[1] > 50, "blue in front, ochre behind"


def test_colours_that_are_values_are_not_shaded() -> None:
    mesh = Mesh(CORNERS, FACES, np.full((4, 3), 0.25, np.float32))
    image = seen(mesh, Camera(np.eye(4), K, 100, 80), shaded=False)
    assert image[40, 50] == pytest.approx(0.25, abs=1e-6)


def crossing(points: np.ndarray) -> np.ndarray:
    return np.where(points[:, 1:2] > 0, points, points * [1, 1, -0.5]).astype(np.float32)


@pytest.mark.parametrize(
    ("place", "covered"),
    [
        (lambda p: p * np.float32(-1), False),
        (lambda p: p + np.array([40, 0, 0], np.float32), False),
        (lambda p: p * np.array([1, 0, 0], np.float32) + np.array([0, 0, 4], np.float32), False),
        (lambda p: p * np.float32(0), False),
        (crossing, True),
        (lambda p: p * np.array([1e4, 1e4, 1], np.float32), True),
        (lambda p: p * np.float32(1e-6), True),
    ],
    ids=["behind", "outside", "edge on", "in one point", "through the camera", "all around", "tiny"],
)
@pytest.mark.parametrize("pictured", [True, False], ids=["photos", "no photos"])
def test_wherever_the_surface_is(place: Callable[[np.ndarray], np.ndarray], covered: bool, pictured: bool) -> None:
    animation = moving(place(CORNERS))
    views = photos(np.zeros((80, 100, 3), np.float32)) if pictured else ()
    (frame,) = overlay(animation, CORNERS, K, views)
    assert frame.shape[0] % 2 == frame.shape[1] % 2 == 0
    assert max(frame.shape) <= 240
    assert (frame != (0 if pictured else GROUND)).any() == covered
    (frame,) = side(animation, CORNERS, 120, 80)
    assert frame.shape == (80, 120, 3)


@pytest.mark.parametrize("centre", [(0, 0), (0.5, 0.5), (-20, 1e4)])
def test_any_intrinsics_have_a_window(centre: tuple[float, float]) -> None:
    normalised = np.array([[1.0, 0, centre[0]], [0, 1, centre[1]], [0, 0, 1]])
    camera = film_window(moving(CORNERS), normalised).camera
    assert (camera.width, camera.height) == (240, 240)
    (frame,) = overlay(moving(CORNERS), CORNERS, normalised)
    assert surroundings(frame) == pytest.approx((27.7, 212.3, 27.7, 212.3), abs=2)
