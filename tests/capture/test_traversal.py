"""No name in a stranger's file makes a reader open anything outside the capture's folder, or any address.

Every file that Python opens while a capture is read is watched. That the watch would see it is tested as well: with the
protection taken away, it does.
"""

from __future__ import annotations

import ast
import json
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from capture_scenes import make_photos, make_transforms, pixels, ring_frames, write_json
from PIL import Image

from recon.capture import colmap, files, mesh_guard, transforms
from recon.capture.archive import extract_zip
from recon.capture.load import load
from recon.errors import InputError, ReconError
from recon.events import Events
from recon.export import read_mesh

SUFFIXES = (".png", ".jpg", ".ply", ".mtl", ".bin", ".obj")
NAMES = (
    "../outside/secret{s}",
    "..\\outside\\secret{s}",
    "./.././outside/secret{s}",
    "images/../../outside/secret{s}",
    "images\\..\\..\\outside\\secret{s}",
    "images/a/../../../outside/secret{s}",
    "....//....//outside/secret{s}",
    "..//..//../outside/secret{s}",
    "{a}/secret{s}",
    "/{a}/secret{s}",
    "///{a}/secret{s}",
    "file://{a}/secret{s}",
    "file:{a}/secret{s}",
    "FILE:///{a}/secret{s}",
    "file://../outside/secret{s}",
    "http://127.0.0.1:9/secret{s}",
    "ftp://127.0.0.1:9/secret{s}",
    "\\\\127.0.0.1\\share\\secret{s}",
    "//127.0.0.1/share/secret{s}",
    "C:\\secret{s}",
    "C:{a}/secret{s}",
    "c:../outside/secret{s}",
    "~/secret{s}",
    "~root/secret{s}",
    "$HOME/secret{s}",
    "%2e%2e/outside/secret{s}",
    "..%2foutside%2fsecret{s}",
    "..%c0%afoutside/secret{s}",
    "\uff0e\uff0e/outside/secret{s}",
    "..\u2215outside\u2215secret{s}",
    "..\u2044outside/secret{s}",
    "\u202e../outside/secret{s}",
    "\ud800/../../outside/secret{s}",
    " ../outside/secret{s} ",
    "\t../outside/secret{s}",
    "../outside/secret{s}\0.png",
    "images\0/../../outside/secret{s}",
    "\0{a}/secret{s}",
    "../outside/secret{s}/.",
    "../outside/./secret{s}",
    "a/" * 600 + "../" * 601 + "outside/secret{s}",
    "a" * 300 + "/../../outside/secret{s}",
    "a" * 70_000 + "{s}",
    "../" * 3000 + "etc/passwd",
    "/etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "/dev/stdin",
    "..",
    ".",
    "",
    "/",
    "linked/secret{s}",
    "linked{s}",
    "data:,../outside/secret{s}",
    "zip:{a}/secret{s}",
    "concat:{a}/secret{s}|{a}/secret{s}",
)
WATCHED: dict[str, Any] = {"folder": None, "seen": []}


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if WATCHED["folder"] is None:
        return
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "urllib.Request"):
        WATCHED["seen"].append((event, arguments))
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = Path(arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0])
        # Libraries open their own files, the readers nothing but what is in the capture's folder.
        inside = any(path.resolve().is_relative_to(folder) for folder in WATCHED["folder"])
        if inside or str(path).startswith(("/etc/pass", "/dev/", "/proc/self/environ")):
            WATCHED["seen"].append((event, arguments))


sys.addaudithook(_hook)


@contextmanager
def watched(*outside: Path) -> Iterator[list[Any]]:
    """Collect what is opened in the folders ``outside``, of the system's secrets, or over the network."""
    WATCHED.update(folder=[folder.resolve() for folder in outside], seen=[])
    try:
        yield WATCHED["seen"]
    finally:
        WATCHED["folder"] = None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the secrets in ``outside`` and an empty ``capture``."""
    root = tmp_path_factory.mktemp("traversal")
    outside = root / "outside"
    outside.mkdir()
    Image.fromarray(pixels()).save(outside / "secret.png")
    Image.fromarray(pixels()).save(outside / "secret.jpg")
    trimesh.PointCloud(np.full((7, 3), 123.0)).export(outside / "secret.ply")
    (outside / "secret.mtl").write_text("newmtl m\nmap_Kd secret.png\n")
    (outside / "secret.bin").write_bytes(bytes(1000))
    trimesh.creation.box().export(outside / "secret.obj")
    return root


def links(root: Path, outside: Path) -> None:
    """Links as an unpacked archive cannot hold them, but a folder might, were they let in."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "linked").symlink_to(outside)
    for suffix in SUFFIXES:
        (root / f"linked{suffix}").symlink_to(outside / f"secret{suffix}")


def colmap_text(root: Path, name: str) -> Callable[[], object]:
    make_photos(root / "images", 3)
    model = root / "sparse/0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text("1 PINHOLE 64 48 50 50 32 24\n")
    lines = [f"{i} 1 0 0 0 {i} 0 4 1 {n}\n\n" for i, n in enumerate(["000.jpg", "001.jpg", "002.jpg", name])]
    (model / "images.txt").write_text("".join(lines), encoding="utf-8", errors="surrogatepass")
    return lambda: load(root, Events(), root / "work")


def colmap_binary(root: Path, name: str) -> Callable[[], object]:
    make_photos(root / "images", 3)
    model = root / "sparse"
    model.mkdir(parents=True)
    (model / "cameras.bin").write_bytes(struct.pack("<QIiQQ4d", 1, 1, 1, 64, 48, 50, 50, 32, 24))
    data = struct.pack("<Q", 4)
    for i, n in enumerate(["000.jpg", "001.jpg", "002.jpg", name]):
        data += struct.pack("<I7dI", i, 1, 0, 0, 0, i, 0, 4, 1) + n.encode("utf-8", "surrogatepass") + b"\0"
        data += struct.pack("<Q", 0)
    (model / "images.bin").write_bytes(data)
    return lambda: load(root, Events(), root / "work")


def frame(root: Path, name: str) -> Callable[[], object]:
    data = make_transforms(root)
    data["frames"].append({**data["frames"][0], "file_path": name})
    write_json(root / "transforms.json", data)
    return lambda: load(root, Events(), root / "work")


def frame_without_suffix(root: Path, name: str) -> Callable[[], object]:
    return frame(root, name.removesuffix(".png"))


def train_frame(root: Path, name: str) -> Callable[[], object]:
    frames = ring_frames(make_photos(root / "train", 3), root)
    frames.append({**frames[0], "file_path": name})
    write_json(root / "transforms_train.json", {"camera_angle_x": 0.7, "frames": frames})
    write_json(root / "transforms_test.json", {"camera_angle_x": 0.7, "frames": frames[-1:]})
    return lambda: load(root, Events(), root / "work")


def frame_mask(root: Path, name: str) -> Callable[[], object]:
    data = make_transforms(root)
    data["frames"][0]["mask_path"] = name
    write_json(root / "transforms.json", data)
    return lambda: [view.load() for view in load(root, Events(), root / "work").views]


def frame_points(root: Path, name: str) -> Callable[[], object]:
    make_transforms(root, ply_file_path=name)
    return lambda: load(root, Events(), root / "work")


def frame_test_names(root: Path, name: str) -> Callable[[], object]:
    make_transforms(root, test_filenames=[name, "images/000.jpg"])
    return lambda: load(root, Events(), root / "work")


FACES = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\n"


def obj_material(root: Path, name: str) -> Callable[[], object]:
    root.mkdir(exist_ok=True)
    (root / "a.obj").write_text(f"mtllib {name}\n{FACES}", encoding="utf-8", errors="surrogatepass")
    return lambda: read_mesh(root / "a.obj")


def obj_texture(root: Path, name: str) -> Callable[[], object]:
    root.mkdir(exist_ok=True)
    (root / "a.obj").write_text(f"mtllib a.mtl\n{FACES}")
    (root / "a.mtl").write_text(f"newmtl m\nmap_Kd {name}\n", encoding="utf-8", errors="surrogatepass")
    return lambda: read_mesh(root / "a.obj")


def ply_texture(root: Path, name: str) -> Callable[[], object]:
    root.mkdir(exist_ok=True)
    quad = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 1, 2]], process=False)
    data = quad.export(file_type="ply", encoding="ascii")
    data = data if isinstance(data, bytes) else data.encode()
    note = b"comment TextureFile " + name.encode("utf-8", "surrogatepass").replace(b"\n", b"") + b"\n"
    (root / "a.ply").write_bytes(data.replace(b"element vertex", note + b"element vertex", 1))
    return lambda: read_mesh(root / "a.ply")


def make_glb(change: Callable[[dict[str, Any]], object]) -> bytes:
    quad = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 1, 2]], process=False)
    picture = Image.fromarray(pixels())
    quad.visual = trimesh.visual.TextureVisuals([[0, 0], [1, 0], [1, 1]], image=picture)
    data = trimesh.exchange.gltf.export_glb(quad.scene())
    (length,) = struct.unpack_from("<I", data, 12)
    tree = json.loads(data[20 : 20 + length])
    change(tree)
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A) + text + rest


def glb_image(root: Path, name: str) -> Callable[[], object]:
    root.mkdir(exist_ok=True)
    (root / "a.glb").write_bytes(make_glb(lambda tree: tree.update(images=[{"uri": name}])))
    return lambda: read_mesh(root / "a.glb")


def glb_buffer(root: Path, name: str) -> Callable[[], object]:
    root.mkdir(exist_ok=True)
    (root / "a.glb").write_bytes(make_glb(lambda tree: tree["buffers"][0].update(uri=name)))
    return lambda: read_mesh(root / "a.glb")


def zip_member(root: Path, name: str) -> Callable[[], object]:
    root.mkdir(exist_ok=True)
    name = name[-60_000:]
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        for i in range(2):
            archive.writestr(f"{i}.jpg", b"x")
        archive.writestr(zipfile.ZipInfo(name.encode("utf-8", "replace").decode()), b"overwritten")
    return lambda: load(root / "a.zip", Events(), root / "work")


READERS: dict[Callable[[Path, str], Callable[[], object]], str] = {
    colmap_text: ".png",
    colmap_binary: ".jpg",
    frame: ".png",
    frame_without_suffix: ".png",
    train_frame: ".png",
    frame_mask: ".png",
    frame_points: ".ply",
    frame_test_names: ".jpg",
    obj_material: ".mtl",
    obj_texture: ".png",
    ply_texture: ".png",
    glb_image: ".png",
    glb_buffer: ".bin",
    zip_member: ".jpg",
}


def attempt(
    reader: Callable[[Path, str], Callable[[], object]],
    root: Path,
    name: str,
    outside: Path,
    error: type[Exception] = ReconError,
) -> list[Any]:
    """Read a capture that names ``name``; return what was opened that must not be."""
    act = reader(root, name)
    beside = root.with_name(f"{root.name}.png")  # where "." would lead that gets a suffix
    with watched(outside, beside) as seen, suppress(error):
        act()
    return seen


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_nothing_outside_is_opened(place: Path, tmp_path: Path, reader: Any) -> None:
    outside = place / "outside"
    before = {path: path.read_bytes() for path in outside.iterdir()}
    for number, name in enumerate(NAMES):
        if name.startswith("linked"):
            continue  # of links see below
        root = place / f"{reader.__name__}-{number}" / "capture"
        root.parent.mkdir()
        Image.fromarray(pixels()).save(root.parent / "capture.png")
        full = name.format(s=READERS[reader], a=outside)
        assert attempt(reader, root, full, outside) == [], full[:100]
        if reader is not zip_member:
            assert {path.name for path in root.parent.iterdir()} <= {"capture", "capture.png"}
    assert {path: path.read_bytes() for path in outside.iterdir()} == before


@pytest.mark.parametrize("reader", [obj_material, obj_texture, ply_texture, glb_image, glb_buffer])
def test_a_mesh_follows_no_link_out_of_its_folder(place: Path, tmp_path: Path, reader: Any) -> None:
    links(tmp_path / "capture", place / "outside")
    for name in ("linked/secret{s}", "linked{s}"):
        full = name.format(s=READERS[reader])
        assert attempt(reader, tmp_path / "capture", full, place / "outside") == [], full


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    for name, target in (("images", "/etc"), ("a.jpg", "../outside/secret.jpg"), ("x/masks", "..")):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            link = zipfile.ZipInfo(name)
            link.external_attr = 0o120777 << 16
            archive.writestr(link, target)
            archive.writestr(f"{name}/passwd", "x")
        with pytest.raises(InputError, match="holds the link"):
            extract_zip(path, tmp_path / "out", Events())
        assert not (tmp_path / "out").exists()


def naive(root: Path, name: str) -> Path | None:
    return root / name.replace("\\", "/")


@pytest.mark.parametrize("reader", [r for r in READERS if r is not zip_member and r is not frame_test_names])
def test_the_watch_sees_what_the_protection_prevents(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Any
) -> None:
    for module in (colmap, files, mesh_guard, transforms):
        monkeypatch.setattr(module, "inside", naive)
    monkeypatch.setattr(mesh_guard, "regular", lambda root, path: path)
    name = f"{place / 'outside'}/secret{READERS[reader]}"
    assert attempt(reader, tmp_path / "capture", name, place / "outside", Exception)


@pytest.mark.parametrize("room", ["app", "recon", "kernels", "benchmarks"])
def test_no_pickle_is_read_anywhere(room: str) -> None:
    """Nothing that runs what it reads is imported or called: not pickle and its kin, nor torch.load, nor yaml.load."""
    forbidden = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
    calls = {("torch", "load"), ("yaml", "load"), ("yaml", "unsafe_load"), ("torch", "jit"), ("numpy", "fromregex")}
    found = []
    for path in sorted((Path(__file__).parents[2] / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found += [(path, a.name) for a in node.names if a.name.split(".")[0] in forbidden]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in forbidden:
                found.append((path, node.module or ""))
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found += [(path, node.attr)] if (node.value.id, node.attr) in calls else []
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                found += [(path, "allow_pickle")] if getattr(node.value, "value", True) is not False else []
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
                found.append((path, node.func.id))
    assert found == []
