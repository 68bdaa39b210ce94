import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from motion4d_ros.scene.scene import Scene
from motion4d_ros.scene.storage import PLY_FIELDS, SH_DC, export_ply, load_scene, save_scene
from motion4d_ros.types import Motion4DError

MS = 1_000_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip_is_bit_exact(tmp_path, make_scene, make_batch, dtype):
    scene = make_scene(dtype=dtype)
    scene.prune(torch.arange(scene.count) != 3)
    scene.drop_times_before(12)
    path = tmp_path / "new" / "scene.safetensors"
    save_scene(scene, path, {"labels": {"1": "cup"}})
    loaded, extra = load_scene(path)
    assert extra == {"labels": {"1": "cup"}}
    assert loaded.params.keys() == scene.params.keys()
    for name, parameter in scene.params.items():
        assert loaded.params[name].dtype == dtype and torch.equal(loaded.params[name], parameter)
    for name in ("ids", "object_id", "dynamic"):
        assert torch.equal(getattr(loaded, name), getattr(scene, name))
    assert torch.equal(loaded.at(13.3).means, scene.at(13.3).means)
    assert list(loaded.bases.indices) == list(scene.bases.indices)
    assert loaded.bases.stamps_ns == scene.bases.stamps_ns
    for each in (scene, loaded):  # both go on alike, with ids that were never used
        each.append(make_batch(2, 2, 1, seed=3))
        each.append_bases(1, torch.zeros(3), *(x.detach()[:1] for x in (each.bases.quats, each.bases.trans)))
        each.extend_times([5_000 * MS])
    assert torch.equal(loaded.ids, scene.ids) and torch.equal(loaded.bases.ids, scene.bases.ids)
    assert list(tmp_path.rglob("*")) == [path.parent, path]  # no temporary files left


def test_files_keep_the_names_of_their_format(tmp_path, scene):
    """A scene that was saved before a parameter got its present name loads, and is written alike."""
    path = tmp_path / "scene.safetensors"
    save_scene(scene, path)
    tensors = load_file(path)
    assert torch.equal(tensors["uncertainty"], scene.params["confidence_logits"]) and "confidence_logits" not in tensors


def test_an_empty_scene_survives(tmp_path):
    save_scene(Scene(3), tmp_path / "s.safetensors")
    loaded, extra = load_scene(tmp_path / "s.safetensors")
    assert loaded.count == 0 and loaded.channels == 3 and loaded.bases.length == 0 and extra == {}


def refusal(path) -> str:
    with pytest.raises(Motion4DError) as caught:
        load_scene(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def test_damaged_files_are_named_in_one_line(tmp_path, scene):
    path = tmp_path / "scene.safetensors"
    assert "no such scene file" in refusal(path)
    save_scene(scene, path)
    content = path.read_bytes()
    for damaged in (b"", b"not a scene", content[: len(content) // 2], b"\xff" * 64 + content[64:]):
        path.write_bytes(damaged)
        assert "damaged" in refusal(path)


def rewrite(path, tensors=None, **changes) -> None:
    """Saves the scene file again with other tensors or metadata."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(content[8 : 8 + length])["__metadata__"] | changes
    save_file(load_file(path) | (tensors or {}), path, {k: v for k, v in metadata.items() if v is not None})


def test_other_versions_and_other_files_are_refused(tmp_path, scene):
    path = tmp_path / "scene.safetensors"
    save_scene(scene, path)
    rewrite(path, version="2")
    assert "version 2, this program reads 1" in refusal(path)
    rewrite(path, format="weights")
    assert "not a scene" in refusal(path)
    save_file({"a": torch.zeros(2)}, path)
    assert "not a scene" in refusal(path)


def test_parts_that_do_not_fit_are_refused(tmp_path, scene):
    path = tmp_path / "scene.safetensors"
    for tensors in ({"ids": scene.ids[:-1]}, {"stamps_ns": torch.zeros(2, dtype=torch.int64)}):
        save_scene(scene, path)
        rewrite(path, tensors)
        assert "disagree in length" in refusal(path)
    save_scene(scene, path)
    rewrite(path, scene="{not json")
    assert "damaged" in refusal(path)


def test_a_place_that_cannot_be_written(tmp_path, scene):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Motion4DError, match="cannot be written"):
        save_scene(scene, tmp_path / "file" / "scene.safetensors")


def read_ply(path) -> dict[str, np.ndarray]:
    """A small reader of our own, by the PLY specification."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count = int(next(line.split()[2] for line in lines if line.startswith("element vertex")))
    names = [line.split()[2] for line in lines if line.startswith("property float ")]
    assert len(body) == count * len(names) * 4
    rows = np.frombuffer(body, "<f4").reshape(count, len(names))
    return {name: rows[:, k] for k, name in enumerate(names)}


def test_ply_holds_what_does_not_move_in_the_splat_layout(tmp_path, scene):
    with torch.no_grad():
        scene.params["means"][4] = torch.nan
    assert export_ply(scene, tmp_path / "scene.ply") == 4
    ply = read_ply(tmp_path / "scene.ply")
    assert tuple(ply) == PLY_FIELDS
    values = {name: p.detach().numpy()[:4] for name, p in scene.params.items()}
    np.testing.assert_allclose(np.stack([ply[k] for k in "xyz"], 1), values["means"], rtol=1e-6)
    colors = np.stack([ply[f"f_dc_{k}"] for k in range(3)], 1) * SH_DC + 0.5
    np.testing.assert_allclose(colors, values["colors"], atol=1e-6)
    np.testing.assert_allclose(ply["opacity"], values["opacity_logits"], rtol=1e-6)
    np.testing.assert_allclose(np.stack([ply[f"scale_{k}"] for k in range(3)], 1), values["log_scales"], rtol=1e-6)
    quats = values["quats"] / np.linalg.norm(values["quats"], axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack([ply[f"rot_{k}"] for k in range(4)], 1), quats, atol=1e-6)


def test_ply_of_nothing(tmp_path):
    assert export_ply(Scene(1), tmp_path / "scene.ply") == 0
    assert all(len(column) == 0 for column in read_ply(tmp_path / "scene.ply").values())
