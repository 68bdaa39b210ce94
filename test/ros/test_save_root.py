"""Strangers name folders: nothing is written but below the root, whole, and within the room."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motion4d_ros.ros.save_root import BLOCK, MIB, SaveRoot
from motion4d_ros.types import Motion4DError

BAD = (
    *("..", "../x", "a/../../x", "/etc/cron.d", "/", ".", ".ssh", "a/.git", "a//b", "a\0b", "a\nb", "~root"),
    *("a/b/c/d/e", "x" * 65, "ü", "a b", "-rf", "a\\b", "${HOME}", "con\u202eft"),
)


def writer(size: int = 10):
    def write(folder: str) -> list[str]:
        path = Path(folder) / "scene.bin"
        path.write_bytes(b"s" * size)
        return [str(path)]

    return write


@pytest.mark.parametrize("name", BAD)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Motion4DError, match="name of a folder below save_root"):
        SaveRoot(str(tmp_path / "root"), 10).save(name, writer())
    assert not list(tmp_path.rglob("*"))


@given(st.text(max_size=40))
def test_no_name_leads_out(name: str) -> None:
    root = Path("/var/lib/robot")
    try:
        folder = SaveRoot(str(root), 10).folder(name)
    except Motion4DError:
        return
    assert folder.is_relative_to(root) and folder != root and folder.resolve() == folder


def test_without_a_root_the_refusal_says_how_to_allow_it() -> None:
    with pytest.raises(Motion4DError, match="parameter save_root") as caught:
        SaveRoot("", 10).folder("kitchen")
    assert len(str(caught.value).splitlines()) == 1


def test_links_lead_nowhere(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (root / "deep").mkdir()
    (root / "deep" / "link").symlink_to(outside)
    for name in ("link", "link/new", "deep/link", "deep/link/new"):
        with pytest.raises(Motion4DError, match="link"):
            SaveRoot(str(root), 10).save(name, writer())
    target = outside / "precious"
    target.write_text("precious")
    (root / "scene").mkdir()
    (root / "scene" / "scene.bin").symlink_to(target)
    assert SaveRoot(str(root), 10).save("scene", writer()) == [f"{root}/scene/scene.bin"]
    assert target.read_text() == "precious", "a link at a file's place is replaced, not followed"


def test_the_room_is_bounded_and_saving_again_takes_none(tmp_path: Path) -> None:
    saves = SaveRoot(str(tmp_path), 3)
    for _ in range(4):  # the same place again and again
        saves.save("a", writer(MIB))
    saves.save("b", writer(MIB))
    with pytest.raises(Motion4DError, match="save_room is 3"):
        saves.save("c", writer(2 * MIB))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"], "nothing is left of it"


def test_many_small_folders_fill_the_room_too(tmp_path: Path) -> None:
    saves, count = SaveRoot(str(tmp_path), 1), 0
    with pytest.raises(Motion4DError, match="save_room"):
        for count in range(MIB // BLOCK):
            saves.save(f"a{count}", writer(1))
    assert 0 < count < MIB // BLOCK / 2 + 1


def test_what_fails_leaves_nothing_and_what_was_there(tmp_path: Path) -> None:
    saves = SaveRoot(str(tmp_path), 10)
    saves.save("a", writer(7))

    def full(folder: str) -> list[str]:
        (Path(folder) / "half").write_bytes(b"x" * 100)
        raise OSError(28, "No space left on device")

    with pytest.raises(Motion4DError, match="No space left on device"):
        saves.save("a", full)
    (tmp_path / ".unfinished-of-a-node-that-was-killed").mkdir()
    saves.save("b", writer(7))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "a", "a/scene.bin", "b", "b/scene.bin",
    ]  # fmt: skip
