"""Which file becomes which: jobs and files in, any format out."""

import json
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from export_scenes import some_splats

from recon.errors import Cancelled, InputError
from recon.events import Events, Warned
from recon.export import export, read_mesh, read_splats, write_mesh, write_splats
from recon.mesh.mesh import Mesh
from recon.mesh.texture import surface_colours


def some_mesh() -> Mesh:
    ball = trimesh.creation.icosphere(3)
    vertices = np.asarray(ball.vertices, np.float32)
    return Mesh(vertices, np.asarray(ball.faces, np.int32), np.abs(vertices))


@pytest.fixture
def job(tmp_path):
    folder = tmp_path / "job"
    write_splats(some_splats(2), folder / "exports" / "splats.ply")
    write_mesh(some_mesh(), folder / "exports" / "mesh.ply")
    (folder / "exports" / "transforms.json").write_text('{"frames": []}')
    return folder


@pytest.mark.parametrize("suffix", [".ply", ".splat", ".spz", ".PLY"])
def test_splats_of_a_job_and_of_files(job, tmp_path, suffix):
    export(job, tmp_path / f"a{suffix}")
    assert len(read_splats(tmp_path / f"a{suffix}")) == 50
    export(tmp_path / f"a{suffix}", tmp_path / "b.ply")
    again = read_splats(tmp_path / "b.ply")
    assert again.sh_degree == (0 if suffix == ".splat" else 2)
    means = read_splats(job / "exports" / "splats.ply").means
    distances = (again.means[:, None] - means).norm(dim=2)
    assert (distances.min(dim=1).values < 1e-5).all()


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".zip", ".stl", ".3mf"])
def test_mesh_of_a_job(job, tmp_path, suffix):
    export(job, tmp_path / f"a{suffix}")
    assert len(read_mesh(tmp_path / f"a{suffix}").faces) == 1280
    export(tmp_path / f"a{suffix}", tmp_path / "b.ply", faces=300)
    small = read_mesh(tmp_path / "b.ply")
    assert 200 < len(small.faces) <= 300
    assert (small.colours is None) == (suffix in (".stl", ".3mf"))


def test_few_faces_keep_the_colours_of_many_in_a_texture(job, tmp_path):
    def error(path, faces):
        mesh = read_mesh(path)
        assert len(mesh.faces) <= faces
        assert mesh.texture.shape == (128, 128, 3)
        assert mesh.statistics().watertight
        rng = np.random.default_rng(0)
        face, weights = rng.integers(len(mesh.faces), size=500), rng.dirichlet(np.ones(3), 500)
        points = np.einsum("nk,nkx->nx", weights, mesh.vertices[mesh.faces[face]])
        expected = np.abs(points) / np.linalg.norm(points, axis=1)[:, None]
        return np.abs(surface_colours(mesh, face, weights) - expected).mean()

    export(job, tmp_path / "a.glb", faces=200, texture=128)
    assert error(tmp_path / "a.glb", 200) < 0.02
    export(tmp_path / "a.glb", tmp_path / "b.zip", faces=100)
    assert error(tmp_path / "b.zip", 100) < 0.02, "a simplified mesh gets a new texture"
    export(tmp_path / "b.zip", tmp_path / "c.ply", faces=50)
    assert read_mesh(tmp_path / "c.ply").colours is not None
    export(tmp_path / "b.zip", tmp_path / "d.glb")
    assert error(tmp_path / "d.glb", 100) < 0.02


def test_what_a_ply_of_a_job_is(job, tmp_path):
    export(job, tmp_path / "result.ply")
    assert len(read_splats(tmp_path / "result.ply")) == 50
    export(job, tmp_path / "Mesh-small.ply")
    assert len(read_mesh(tmp_path / "Mesh-small.ply").faces) == 1280
    export(job, tmp_path / "result.ply", faces=100)
    assert len(read_mesh(tmp_path / "result.ply").faces) <= 100
    (job / "exports" / "splats.ply").unlink()
    export(job, tmp_path / "only.ply")
    assert len(read_mesh(tmp_path / "only.ply").faces) == 1280
    (job / "exports" / "mesh.ply").unlink()
    write_mesh(some_mesh(), job / "exports" / "mesh.glb")
    export(job, tmp_path / "only.stl")
    assert len(read_mesh(tmp_path / "only.stl").faces) == 1280


def test_cameras(job, tmp_path):
    export(job, tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text()) == {"frames": []}
    export(tmp_path / "t.json", tmp_path / "u.json")
    assert json.loads((tmp_path / "u.json").read_text()) == {"frames": []}


def test_onto_itself(job):
    file = job / "exports" / "splats.ply"
    before = file.read_bytes()
    export(file, file)
    assert file.read_bytes() == before


def test_losses_are_told_and_stopping_is_heard(job, tmp_path):
    events, seen = Events(), []
    events.listen(seen.append)
    export(job, tmp_path / "a.splat", events=events)
    export(job, tmp_path / "a.stl", events=events)
    assert [type(e) for e in seen] == [Warned, Warned]
    export(tmp_path / "a.splat", tmp_path / "b.splat", events=events)
    assert len(seen) == 2, "nothing is lost a second time"
    events.cancel()
    with pytest.raises(Cancelled):
        export(job, tmp_path / "c.ply", events=events)
    assert not (tmp_path / "c.ply").exists()


def test_impossible_wishes(job, tmp_path):
    def fails(source, to, match, code, **options):
        with pytest.raises(InputError, match=match) as error:
            export(source, tmp_path / to, **options)
        assert error.value.code == code
        assert error.value.hint
        assert not (tmp_path / to).exists()

    splats, mesh = job / "exports" / "splats.ply", job / "exports" / "mesh.ply"
    fails(job, "a.fbx", r"\.fbx is not a format", "bad-format")
    fails(job, "a", "no suffix is not a format", "bad-format")
    fails(splats, "a.glb", r"holds splats, and \.glb is a format for mesh", "wrong-kind")
    fails(mesh, "a.spz", r"holds mesh, and \.spz is a format for splats", "wrong-kind")
    fails(mesh, "a.json", "is a format for cameras", "wrong-kind")
    fails(splats, "a.spz", "no faces to reduce", "bad-faces", faces=100)
    fails(splats, "a.spz", "have no texture", "bad-texture", texture=64)
    fails(mesh, "a.stl", "holds no texture", "bad-texture", texture=64)
    fails(mesh, "a.glb", "8 × 8 texels cannot be made", "bad-texture", texture=8)
    fails(tmp_path / "none.ply", "a.ply", "does not exist", "no-such-path")
    (tmp_path / "some.xyz").touch()
    fails(tmp_path / "some.xyz", "a.ply", "neither a job directory nor", "bad-format")
    fails(splats, "a.spz", "have no texture", "bad-texture", texture=64)
    fails(mesh, "a.stl", "holds no texture", "bad-texture", texture=64)
    fails(mesh, "a.glb", "8 × 8 texels cannot be made", "bad-texture", texture=8)
    fails(tmp_path, "a.ply", "no exports", "nothing-to-export")
    write_mesh(replace(some_mesh(), colours=None), tmp_path / "grey.ply")
    fails(tmp_path / "grey.ply", "a.glb", "no colours to make a texture of", "no-colours", texture=64)
    splats.unlink()
    fails(job, "a.splat", "mesh and cameras, but no splats", "nothing-to-export")
    mesh.write_bytes(mesh.read_bytes()[:1000])
    fails(job, "a.glb", "ends early", "broken-file")
