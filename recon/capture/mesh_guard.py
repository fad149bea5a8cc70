"""What a stranger's mesh file may make trimesh do: which files it opens, which images it decodes, how much it unfolds.

trimesh believes a header's counts, opens whatever a resolver gives it, and has Pillow guess the format of textures.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
from itertools import chain
from pathlib import Path
from typing import Any

import trimesh

from recon.capture.archive import most_unpacked
from recon.capture.files import broken, inside
from recon.capture.images import check_texture
from recon.errors import InputError

MOST_NUMBERS = 50_000_000
"""Numbers of which a mesh consists, at most, where its file is not of that size itself: an array may be used often."""
MOST_OBJECTS, _MOST_MATERIALS, _MOST_DEPTH = 5_000, 2_000, 64
"""Objects of a file, materials of an OBJ and objects inside each other: trimesh takes their square in time."""
_MOST_BYTES = 1 << 30  # of a file beside the mesh
_GLB, _JSON = struct.Struct("<4sIIII"), 0x4E4F534A
_NUMBERS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}


class Beside(trimesh.resolvers.Resolver):
    """Give trimesh the files that lie in the mesh's own folder, and no others, wherever a name or a link leads.

    trimesh goes on without a file that it does not get, whatever was raised; ``refused`` is the error that people must
    see all the same.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._folder = path, path.absolute().parent
        self.file_name = path.name  # trimesh names an OBJ's object by it
        self.refused: InputError | None = None

    def get(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            FileNotFoundError: there is none of this name in the folder, or it is no texture that is read.
            InputError: a texture of too many pixels.
        """
        bare = name.strip().replace("\\", "/").rsplit("/", 1)[-1]
        for candidate in (inside(self._folder, name.strip()), inside(self._folder, bare)):
            file = regular(self._folder, candidate)
            if file is not None and file.stat().st_size <= _MOST_BYTES:
                data = file.read_bytes()
                if file.suffix.lower() in (".mtl", ".bin") or self._check(data):
                    return data
        raise FileNotFoundError(name)

    def _check(self, data: bytes) -> bool:
        try:
            return check_texture(data, self._path)
        except InputError as error:
            self.refused = error
            raise

    def keys(self) -> list[str]:
        """Return nothing: names are asked for, not listed."""
        return []

    def write(self, name: str, data: Any) -> None:
        """Refuse."""
        raise PermissionError(name)

    def namespaced(self, namespace: str) -> Beside:
        """Return itself: folders below are part of the name."""
        return self


def regular(root: Path, path: Path | None) -> Path | None:
    """Return the file that ``path`` is, links followed; None if it is no regular file inside ``root``."""
    try:
        file = path.resolve() if path is not None else None
        return file if file is not None and file.is_file() and file.is_relative_to(root.resolve()) else None
    except (OSError, ValueError, RuntimeError):  # too long a name, or a circle of links
        return None


def guard_glb(data: bytes, path: Path) -> bytes:
    """Return a GLB without the textures that are not read.

    Raises:
        InputError: it announces more than it can hold, or a texture has too many pixels.
        ValueError: no GLB.
    """
    magic, _, _, length, kind = _GLB.unpack_from(data)
    if magic != b"glTF" or kind != _JSON:
        raise ValueError("it does not begin as glTF 2.0")
    tree = json.loads(data[_GLB.size : _GLB.size + length])
    _check_counts(tree, len(data), path)
    _check_objects(tree, path)
    rest = data[_GLB.size + length :]
    dropped = False
    for index, image in enumerate(tree.get("images", [])):
        content = _embedded(tree, image, rest[8:])
        if content is not None and not check_texture(content, path):
            tree["images"][index] = {"mimeType": "image/ktx2"}  # which trimesh passes over
            dropped = True
    if not dropped:
        return data
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    return _GLB.pack(magic, 2, _GLB.size + len(text) + len(rest), len(text), _JSON) + text + rest


def _embedded(tree: dict[str, Any], image: dict[str, Any], binary: bytes) -> bytes | None:
    """Return the bytes of an image that is inside the file; None of one that lies beside it."""
    if "bufferView" in image:
        view = tree["bufferViews"][image["bufferView"]]
        start = view.get("byteOffset", 0)
        return binary[start : start + view["byteLength"]]
    uri = image.get("uri", "")
    return base64.b64decode(uri.split(",", 1)[-1]) if uri.startswith("data:") else None


def _check_counts(tree: dict[str, Any], size: int, path: Path) -> None:
    """Refuse arrays that are announced larger, or used more often, than a file of ``size`` bytes would."""
    accessors = tree.get("accessors", [])
    numbers = [accessor["count"] * _NUMBERS[accessor["type"]] for accessor in accessors]
    used = [
        numbers[index]
        for mesh in tree.get("meshes", [])
        for primitive in mesh["primitives"]
        for index in chain(primitive.get("attributes", {}).values(), [primitive.get("indices", -1)])
        if 0 <= index < len(numbers)
    ]
    views = [view["byteLength"] for view in tree.get("bufferViews", [])]
    if min(numbers + views, default=0) < 0:
        raise ValueError("a count is negative")
    if max(sum(numbers), sum(used), sum(views)) > max(MOST_NUMBERS, 4 * size):
        raise broken(path, f"it announces more than a file of {size:,} bytes holds")


def _check_objects(tree: dict[str, Any], path: Path) -> None:
    """Refuse more objects, or deeper ones, than can be read in a reasonable time."""
    nodes = tree.get("nodes", [])
    primitives = sum(len(mesh["primitives"]) for mesh in tree.get("meshes", []))
    level, depth = list(range(len(nodes))), 0
    while level and depth <= _MOST_DEPTH:  # whether it is a tree or turns in a circle
        level, depth = list({child for index in level for child in nodes[index].get("children", [])}), depth + 1
    if max(len(nodes), primitives) > MOST_OBJECTS or depth > _MOST_DEPTH:
        what = f"more than {MOST_OBJECTS:,} objects, or objects more than {_MOST_DEPTH} deep inside each other"
        raise broken(path, f"it has {what}", "Join its objects into one mesh.")


def guard_obj(data: bytes, path: Path) -> None:
    """Refuse an OBJ of more materials than can be read in a reasonable time.

    Raises:
        InputError: it has them.
    """
    if data.count(b"usemtl") > _MOST_MATERIALS:
        names = {line for line in data.splitlines() if line.lstrip().startswith(b"usemtl")}
        if len(names) > _MOST_MATERIALS:
            raise broken(path, f"it has {len(names):,} materials", "Join them: one texture for all of the mesh.")


def guard_3mf(data: bytes, path: Path) -> None:
    """Refuse a 3MF that unfolds to far more than its size, which trimesh does in memory.

    Raises:
        InputError: it does.
        zipfile.BadZipFile: it is none.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > most_unpacked(len(data)):
            raise broken(path, f"it unfolds to far more than its {len(data):,} bytes")
