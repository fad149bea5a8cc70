from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import trimesh

from app import mesh_facts as module
from app.mesh_facts import facts_of, mesh_facts
from recon.errors import InputError
from recon.export import write_mesh
from recon.mesh.mesh import Mesh

BOX = trimesh.creation.box((2, 3, 5))


def mesh_of(shape: trimesh.Trimesh, faces: slice = slice(None), **more) -> Mesh:
    return Mesh(shape.vertices.astype(np.float32), shape.faces[faces].astype(np.int32), **more)


def test_a_closed_box(tmp_path: Path) -> None:
    write_mesh(mesh_of(BOX), tmp_path / "mesh.glb")
    facts = facts_of(tmp_path / "mesh.glb")
    assert (facts.faces, facts.vertices, facts.parts, facts.watertight, facts.manifold) == (12, 8, 1, True, True)
    assert facts.size == (2, 3, 5)
    assert (facts.area, facts.volume) == (pytest.approx(62), pytest.approx(30))
    assert (facts.texture, facts.coloured) == (None, False)
    rows = dict(facts.rows())
    assert rows["surface"] == "closed (watertight)"
    assert (rows["size"], rows["area"], rows["volume"], rows["colour"]) == ("2 × 3 × 5", "62", "30", "none")


def test_an_open_box_in_two_parts_with_a_texture(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(1).apply_translation([9, 0, 0])
    both = trimesh.util.concatenate([BOX, ball])
    uvs = np.random.default_rng(0).random((len(both.faces) - 1, 3, 2)).astype(np.float32)
    texture = np.zeros((16, 32, 3), np.float32)
    write_mesh(mesh_of(both, slice(1, None), uvs=uvs, texture=texture), tmp_path / "mesh.glb")
    facts = facts_of(tmp_path / "mesh.glb")
    assert (facts.parts, facts.watertight, facts.open_edges, facts.volume) == (2, False, 3, None)
    assert facts.texture == (32, 16)
    rows = dict(facts.rows())
    assert (rows["surface"], rows["colour"]) == ("open along 3 edges", "texture of 32 × 16")
    assert "volume" not in rows


def test_they_are_kept_until_the_mesh_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = {"mesh": tmp_path / "mesh.glb"}
    write_mesh(mesh_of(BOX, colours=np.ones((8, 3), np.float32)), exports["mesh"])
    first = mesh_facts(tmp_path, exports)
    assert dict(first.rows())["colour"] == "by vertex"
    with monkeypatch.context() as patched:
        patched.setattr(module, "facts_of", None)
        assert mesh_facts(tmp_path, exports) == first
    (tmp_path / "previews" / "mesh.json").write_text('{"key": ')
    assert mesh_facts(tmp_path, exports) == first, "a torn file is made anew"
    write_mesh(mesh_of(BOX.copy().apply_scale(2)), exports["mesh"])
    assert mesh_facts(tmp_path, exports).volume == pytest.approx(240)


def test_a_hundred_thousand_faces_take_a_moment(tmp_path: Path) -> None:
    dense = trimesh.creation.torus(1, 0.3, major_sections=500, minor_sections=100)
    write_mesh(mesh_of(dense), tmp_path / "mesh.glb")
    begun = time.perf_counter()
    assert facts_of(tmp_path / "mesh.glb").faces == 100_000
    assert time.perf_counter() - begun < 4  # 0.6 s on an idle machine


def test_what_is_no_mesh(tmp_path: Path) -> None:
    (tmp_path / "mesh.glb").write_bytes(b"no")
    with pytest.raises(InputError):
        mesh_facts(tmp_path, {"mesh": tmp_path / "mesh.glb"})
