"""Detections beside a recording: COCO's JSON in its variants, topics of bags, and everything that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from motion4d_ros.offline.sources import SourceOptions, open_source
from motion4d_ros.types import Detection, Motion4DError


def frames_of(path, **options):
    source = open_source(Path(path), SourceOptions(**options))
    try:
        return list(source), source
    finally:
        source.close()


def result(image_id, x=5, label=3, score=0.75, **more):
    return {"image_id": image_id, "category_id": label, "bbox": [x, 6, 10, 8], "score": score, **more}


def written(tmp_path, content):
    path = tmp_path / "detections.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def found(frames):
    """Frame number -> left edges of its boxes, of frames that somebody looked at."""
    return {k: [each.box_px[0] for each in f.detections] for k, f in enumerate(frames) if f.detections is not None}


def test_bare_results_count_frames_from_zero(make_images, tmp_path):
    path = written(tmp_path, [result(k, x=k) for k in (0, 2, 3)] + [result(2, x=20, label="5", score=0.5)])
    frames, source = frames_of(make_images(4), detections=path)
    assert found(frames) == {0: [0], 1: [], 2: [2, 20], 3: [3]}
    assert frames[2].detections == (
        Detection((2.0, 6.0, 11.0, 13.0), "class 3", 0.75),
        Detection((20.0, 6.0, 29.0, 13.0), "class 5", 0.5),
    )
    assert "counts frames from 0" in source.report.used["detections"]


def test_classes_by_any_name(make_images, tmp_path):
    entries = [result(0), {"image_id": 0, "category": "dog", "bbox": [1, 1, 5, 5], "score": 0.9, "track_id": 4}]
    path = written(tmp_path, {"annotations": entries, "categories": [{"id": 3, "name": "cup"}]})
    frames, _ = frames_of(make_images(2), detections=path)
    assert [(each.label, each.object_id) for each in frames[0].detections] == [("dog", "4"), ("cup", "")]


@pytest.mark.parametrize("first", [0, 1, 17])
def test_images_by_the_names_of_their_files(make_images, tmp_path, first):
    """The ids of the images mean nothing, their files' names do; images without a box were looked at, too."""
    images = [{"id": 100 + k, "file_name": f"some/where/img{k + first}.jpg"} for k in range(4)]
    content = {"images": images, "annotations": [result(102, x=9)], "categories": []}
    folder = make_images(4)
    for k in reversed(range(4)):
        (folder / f"img{k}.png").rename(folder / f"img{k + first}.png")
    frames, _ = frames_of(folder, detections=written(tmp_path, content))
    assert found(frames) == {0: [], 1: [], 2: [9], 3: []}


def test_images_by_stamps_in_their_names(make_images, tmp_path):
    folder = make_images(3)
    for k in range(3):
        (folder / f"img{k}.png").rename(folder / f"170000000{k}.500000.png")
    content = {"images": [{"id": k, "file_name": f"17000000{k:02d}.504000.png"} for k in (0, 2)]}
    content["results"] = [result(0, x=1), result(2, x=3)]
    frames, source = frames_of(folder, detections=written(tmp_path, content))
    assert found(frames) == {0: [1], 2: [3]}
    assert any("by stamp" in text for text in source.report.sentences())
    content["images"] = [{"id": k, "file_name": f"18000000{k:02d}.504000.png"} for k in (0, 2)]
    with pytest.raises(Motion4DError, match=r"--detections .*none of the 2 .* lies within"):
        frames_of(folder, detections=written(tmp_path, content))


def test_boxes_given_for_another_size_are_scaled(make_images, tmp_path):
    image = {"id": 0, "file_name": "img0.png", "width": 96, "height": 64}
    path = written(tmp_path, {"images": [image], "annotations": [result(0, x=20)]})
    frames, source = frames_of(make_images(1), detections=path)  # 48 x 32 px
    assert frames[0].detections[0].box_px == (10.0, 3.0, 14.0, 6.0)
    assert any("scaled" in text for text in source.report.sentences())


BAD_ENTRIES = [
    "text", None, 7, {}, {"image_id": 0}, result(None), result(True), result(0) | {"bbox": "0 0 5 5"},
    result(0) | {"bbox": [1, 2, 3]}, result(0) | {"bbox": [1, 2, 3, None]}, result(0) | {"bbox": [10**400, 2, 3, 4]},
    {"image_id": 0, "bbox": [1, 1, 5, 5], "score": 0.5}, result(0, label=None),
]  # fmt: skip
BAD_BOXES = [
    result(0, x=float("nan")), result(0, x=1e999), result(0, score=float("nan")), result(0, score="high"),
    result(0, score=3), result(0, x=900), result(0) | {"bbox": [5, 5, -3, 4]}, result(0) | {"bbox": [5, 5, 0, 4]},
]  # fmt: skip


def test_bad_entries_are_left_out_and_counted(make_images, tmp_path):
    path = written(tmp_path, [result(0), *BAD_ENTRIES, *BAD_BOXES, result(1, label="x" * 1000)])
    frames, source = frames_of(make_images(2), detections=path)
    assert [len(frame.detections) for frame in frames] == [1, 1]
    assert len(frames[1].detections[0].label) <= 64
    told = {text: n for text, n in source.report.warnings.items() if text.startswith("detections: ")}
    assert sum(told.values()) == len(BAD_ENTRIES) + len(BAD_BOXES)
    assert any("no" in text and "number" in text for text in told) and any("outside the image" in text for text in told)


def test_a_flood_keeps_the_best_and_says_so(make_images, tmp_path):
    path = written(tmp_path, [result(0, x=k % 30, score=k / 10_000) for k in range(10_000)])
    frames, source = frames_of(make_images(1), detections=path)
    assert len(frames[0].detections) == 100 and frames[0].detections[0].score == 0.9999
    assert source.report.warnings["detections: boxes beyond the best 100 of an image were left out"] == 9900


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{not json", "not valid JSON"),
        ("", "not valid JSON"),
        ('"text"', "neither COCO's list"),
        ("{}", "neither COCO's list"),
        ('{"images": []}', "neither COCO's list"),
        ('{"annotations": 5}', "no list"),
        ("[" * 100_000, "JSON"),
        (b"\xff\xfe\x00", "cannot be read"),
        ({"images": [{"id": 1, "file_name": "a/0.png"}, {"id": 2, "file_name": "b/0.png"}], "annotations": []},
         "called '0'"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_one_is_one_line(make_images, tmp_path, content, reason):
    path = tmp_path / "bad.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(Motion4DError, match=f"--detections .*{reason}") as caught:
        frames_of(make_images(2), detections=str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_and_one_without_a_detection(make_images, tmp_path):
    folder = make_images(2)
    with pytest.raises(Motion4DError, match="--detections"):
        frames_of(folder, detections=str(tmp_path / "nowhere.json"))
    frames, source = frames_of(folder, detections=written(tmp_path, []))
    assert found(frames) == {0: [], 1: []} and any("holds no detection" in t for t in source.report.sentences())


# ---- bags -----------------------------------------------------------------------------------------------------------

BEGIN_NS = 1_700_000_000_000_000_000


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_topic_of_a_bag(make_bag, topics, storage):
    """Every third image has detections, a little late."""
    boxes = {k: [(10.0 + k, 12.0, 8.0, 6.0, "cup", 0.5), (30.0, 12.0, -1.0, 6.0, "cup", 0.5)] for k in range(0, 10, 3)}
    bag = make_bag(storage=storage, detections=boxes)
    frames, source = frames_of(bag, image=topics.image, detections="/detections")
    assert found(frames) == {k: [6.0 + k] for k in range(0, 10, 3)}
    assert source.report.warnings["detections: boxes without a width or height were left out"] == 4
    assert source.report.used["detections"] == "/detections"
    with pytest.raises(Motion4DError, match="--detections /camera/image_raw is a sensor_msgs"):
        frames_of(bag, image=topics.image, detections="/camera/image_raw")
    with pytest.raises(Motion4DError, match="--detections /detection: no such topic"):
        frames_of(bag, image=topics.image, detections="/detection")


def test_stamps_that_match_no_image_are_refused(make_bag, topics):
    bag = make_bag(
        detections={k: [(10.0, 12.0, 8.0, 6.0, "cup", 0.5)] for k in range(10)}, detections_offset_ns=40_000_000
    )
    with pytest.raises(Motion4DError, match=r"--detections /detections: its stamps lie 40 ms"):
        frames_of(bag, image=topics.image, detections="/detections")


def test_a_file_beside_a_bag_by_number_or_stamp(make_bag, topics, tmp_path):
    bag = make_bag()
    frames, _ = frames_of(bag, image=topics.image, detections=written(tmp_path, [result(2, x=1), result(9, x=2)]))
    assert {k: v for k, v in found(frames).items() if v} == {2: [1], 9: [2]}
    by_stamp = [result(BEGIN_NS + 200_000_000 + 3_000_000, x=1), result(BEGIN_NS + 50_000_000, x=2)]
    frames, _ = frames_of(bag, image=topics.image, detections=written(tmp_path, by_stamp))
    assert {k: v for k, v in found(frames).items() if v} == {2: [1]}
