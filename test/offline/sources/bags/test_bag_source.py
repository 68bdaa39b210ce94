"""Bags in: every storage, every topic, and everything that can be wrong with them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from motion4d_ros.offline.sources import SourceOptions, open_source
from motion4d_ros.types import Motion4DError


def frames_of(path, options):
    source = open_source(path, options)
    try:
        return list(source), source
    finally:
        source.close()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3", "ros1"])
def test_all_topics_of_every_storage(make_bag, topics, storage):
    frames, source = frames_of(make_bag(storage=storage), topics)
    assert len(frames) == source.count == 10
    for index, frame in enumerate(frames):
        assert frame.stamp_ns == 1_700_000_000_000_000_000 + index * 100_000_000
        assert frame.frame_id == "camera_optical"
        assert tuple(frame.image[10, 6 + index]) == (220, 40, 30)
        assert (frame.masks[8:20, 4 + index : 16 + index] == 3).all() and (frame.masks == 3).sum() == 144
        assert np.allclose(frame.depth_m, 2.0)
        assert np.allclose(frame.T_map_cam, make_bag.poses[frame.stamp_ns])
    assert frames[0].camera.fx == 40.0 and frames[0].camera.cx == 23.5
    assert not source.report.warnings and not source.report.missing


def test_reading_twice_gives_the_same(make_bag, topics):
    source = open_source(make_bag(), topics)
    first, second = list(source), list(source)
    source.close()
    assert [f.stamp_ns for f in first] == [f.stamp_ns for f in second]
    assert np.array_equal(first[-1].masks, second[-1].masks)


def test_messages_are_not_all_in_memory(make_bag, topics):
    iterator = iter(open_source(make_bag(frames=20), topics))
    first = next(iterator)
    assert first.depth_m is not None and first.masks is not None  # complete although the rest is unread


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_encodings(make_bag, topics, encoding):
    frames, _ = frames_of(make_bag(image_encoding=encoding), topics)
    expected = (220, 220, 220) if encoding == "mono8" else (220, 40, 30)
    assert tuple(frames[0].image[10, 6]) == expected


def test_compressed_images_and_millimetres(make_bag):
    options = SourceOptions(image="/camera/image_raw/compressed", depth="/camera/depth")
    frames, _ = frames_of(make_bag(compressed=True, depth_encoding="16UC1", depth_value=1.234), options)
    assert tuple(frames[3].image[10, 8]) == (220, 40, 30)
    assert np.allclose(frames[3].depth_m, 1.234)
    assert frames[3].camera.fx == 40.0  # camera info found beside the raw topic


def test_only_image_topic_is_guessed_and_said(make_bag):
    frames, source = frames_of(make_bag(), SourceOptions(depth="none"))
    assert len(frames) == 10
    assert source.report.used["image"] == "/camera/image_raw"
    text = " ".join(source.report.sentences())
    assert "/camera/image_raw was chosen" in text and "not asked for: /camera/mask" in text
    assert "--odometry /odom" in text
    assert set(source.report.missing) == {"depth", "masks", "camera poses"} and not source.report.found


def test_depth_that_lies_on_the_image_is_used_and_said(make_bag):
    frames, source = frames_of(make_bag(), SourceOptions())
    assert all(np.allclose(frame.depth_m, 2.0) for frame in frames)
    assert source.report.used["depth"] == "/camera/depth (found)"
    assert "depth: /camera/depth was found and used (--depth none leaves it)" in source.report.sentences()
    assert source.report.found == {"depth"} and set(source.report.missing) == {"masks", "camera poses"}


def test_two_cameras_are_not_guessed(make_bag):
    bag = make_bag(extra=["/left/image_raw", "/right/image_raw"], topics=("depth",))
    with pytest.raises(Motion4DError, match=r"which image topic.*--image.*left.*right"):
        open_source(bag, SourceOptions())


def test_unknown_topic_lists_and_suggests(make_bag):
    with pytest.raises(Motion4DError, match=r"--image /camera/imageraw.*did you mean /camera/image_raw.*/camera/mask"):
        open_source(make_bag(), SourceOptions(image="/camera/imageraw"))


def test_topic_of_the_wrong_type(make_bag):
    with pytest.raises(Motion4DError, match=r"--odometry /camera/depth is a sensor_msgs/msg/Image.*/odom"):
        open_source(make_bag(), SourceOptions(image="/camera/image_raw", odometry="/camera/depth"))


def test_depth_topic_as_image(make_bag):
    with pytest.raises(Motion4DError, match=r"no usable image on /camera/depth: .*32FC1 is no colour"):
        frames_of(make_bag(), SourceOptions(image="/camera/depth"))


def test_missing_camera_info(make_bag):
    bag = make_bag(topics=("image",))
    with pytest.raises(Motion4DError, match=r"no camera info.*--intrinsics"):
        open_source(bag, SourceOptions())
    frames, _ = frames_of(bag, SourceOptions(intrinsics=(50.0, 50.0, 24.0, 16.0)))
    assert frames[0].camera.fx == 50.0


def test_poses_between_stamps_are_interpolated(make_bag, topics):
    frames, _ = frames_of(make_bag(pose_offset_ns=-25_000_000), topics)
    turn = Rotation.from_matrix(frames[4].T_map_cam[:3, :3]).as_euler("xyz", degrees=True)[2]
    assert turn == pytest.approx(2.0 * 4.25)
    assert frames[4].T_map_cam[0, 3] == pytest.approx(0.425)
    assert np.allclose(frames[-1].T_map_cam, make_bag.poses[frames[-1].stamp_ns - 25_000_000])  # 25 ms beyond the last


def test_pose_stamped(make_bag, topics):
    frames, _ = frames_of(make_bag(odometry_type="geometry_msgs/msg/PoseStamped"), topics)
    assert np.allclose(frames[7].T_map_cam, make_bag.poses[frames[7].stamp_ns])


def test_gap_of_poses_is_a_stated_degraded_mode(make_bag, topics):
    frames, source = frames_of(make_bag(frames=14, pose_gap=range(3, 10)), topics)
    assert [f.T_map_cam is None for f in frames] == [False] * 3 + [True] * 7 + [False] * 4
    assert source.report.warnings["a frame has no camera pose near its time: its pose is predicted"] == 7


def test_body_odometry_needs_an_extrinsic(make_bag, topics):
    with pytest.raises(Motion4DError, match=r"'base', the camera is 'camera_optical'.*base_to_camera"):
        frames_of(make_bag(body="base"), topics)
    T = np.eye(4)
    T[:3, 3] = 0.0, 0.0, 0.2
    topics.extrinsic = T
    frames, _ = frames_of(make_bag("other", body="base"), topics)
    assert frames[0].T_map_cam[2, 3] == pytest.approx(0.7)


def test_body_odometry_with_static_transform(make_bag, topics):
    bag = make_bag(body="base", topics=("image", "info", "depth", "masks", "odom", "tf"))
    frames, _ = frames_of(bag, topics)
    assert np.allclose(frames[0].T_map_cam[:3, 3], [0.0, 0.0, 0.7])
    assert np.allclose(frames[0].T_map_cam[:3, 2], [1.0, 0.0, 0.0])  # looks along the base's x


def test_poses_from_tf(make_bag):
    bag = make_bag(topics=("image", "info", "tf"), pose_offset_ns=-40_000_000)
    frames, _ = frames_of(bag, SourceOptions(use_tf=True))
    assert np.allclose(frames[5].T_map_cam[:3, 3], [0.54, 0.0, 0.7], atol=1e-6)
    with pytest.raises(Motion4DError, match=r"no frame 'world'.*map_frame.*base"):
        frames_of(bag, SourceOptions(use_tf=True, map_frame="world"))


def test_no_tf_in_the_bag(make_bag):
    with pytest.raises(Motion4DError, match="holds no /tf"):
        open_source(make_bag(), SourceOptions(use_tf=True))


def test_distorted_images_are_rectified(make_bag):
    plain, _ = frames_of(make_bag("plain"), SourceOptions(masks="/camera/mask"))
    bent, source = frames_of(make_bag("bent", distortion=(-0.3, 0.1, 0, 0, 0)), SourceOptions(masks="/camera/mask"))
    assert not np.array_equal(plain[0].image, bent[0].image)
    assert set(np.unique(bent[0].masks)) == {0, 3}  # labels are not mixed
    assert "rectified" in source.report.used["camera"]
    fish, _ = frames_of(make_bag("fish", distortion=(0.1, 0.01, 0, 0), model="equidistant"), SourceOptions())
    assert not np.array_equal(plain[0].image, fish[0].image)


def test_unknown_distortion_model(make_bag):
    with pytest.raises(Motion4DError, match="distortion model 'odd'"):
        frames_of(make_bag(distortion=(0.1, 0, 0, 0), model="odd"), SourceOptions())


def test_depth_and_masks_of_half_size_are_fitted(make_bag, topics):
    frames, source = frames_of(make_bag(depth_size=(16, 24), masks_size=(16, 24)), topics)
    assert frames[0].depth_m.shape == frames[0].masks.shape == (32, 48)
    for what in ("depth", "masks"):
        text = f"{what} of 24x16 px scaled to the image's 48x32 by nearest neighbour"
        assert any(text in sentence for sentence in source.report.sentences())


@pytest.mark.parametrize("part", ["depth", "masks"])
def test_depth_or_masks_of_another_shape(make_bag, topics, part):
    with pytest.raises(Motion4DError, match=rf"{part}: 40x16 px does not show the view of 48x32"):
        frames_of(make_bag(**{f"{part}_size": (16, 40)}), topics)


def test_nan_depth_is_unknown_and_said(make_bag, topics):
    frames, source = frames_of(make_bag(depth_value=np.nan), topics)
    assert not frames[0].depth_m.any()
    assert source.report.warnings["a depth image holds no valid depth at all (zero, NaN or infinite)"] == 10


def test_size_change_midway(make_bag, topics):
    sizes = [(48, 32)] * 5 + [(24, 16)] * 5
    with pytest.raises(Motion4DError, match="change from 48x32 to 24x16 px midway"):
        frames_of(make_bag(image_sizes=sizes), topics)


@pytest.mark.parametrize("storage", ["mcap", "ros1"])
def test_a_camera_info_that_changes_midway_is_said(make_bag, topics, storage):
    frames, source = frames_of(make_bag(storage=storage, focals=[40.0] * 6 + [60.0] * 4), topics)
    assert [frame.camera.fx for frame in frames] == [40.0] * 10
    assert [count for text, count in source.report.warnings.items() if "changes midway" in text] == [4]
    _, source = frames_of(make_bag("rounded", storage=storage, focals=[40.0, 40.0001] * 5), topics)
    assert not any("changes midway" in text for text in source.report.warnings)


def test_stamps_that_stand_still_or_go_back(make_bag):
    start = 1_700_000_000_000_000_000
    stamps = [start, start + 10**8, start + 10**8, start + 5 * 10**7, start + 4 * 10**8]
    frames, source = frames_of(make_bag(frames=5, stamps=stamps), SourceOptions())
    assert [f.stamp_ns - start for f in frames] == [0, 5 * 10**7, 10**8, 4 * 10**8]
    assert sum(source.report.warnings[w] for w in source.report.warnings if "the stamp of another" in w) == 1


def test_empty_bag(make_bag):
    with pytest.raises(Motion4DError, match="no messages"):
        open_source(make_bag(frames=0), SourceOptions())


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_metadata_missing(make_bag, topics, storage):
    bag = make_bag(storage=storage)
    (bag / "metadata.yaml").unlink()
    frames, source = frames_of(bag, topics)
    assert len(frames) == 10
    assert any("metadata.yaml is missing" in text for text in source.report.sentences())


def test_metadata_broken(make_bag, topics):
    bag = make_bag()
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: {version: [")
    frames, source = frames_of(bag, topics)
    assert len(frames) == 10 and source.report.warnings


@pytest.mark.parametrize("count", [20, 160])  # within its only chunk; after several
def test_truncated_mcap_gives_its_beginning(make_bag, topics, count):
    bag = make_bag(frames=count)
    file = next(bag.glob("*.mcap"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    frames, source = frames_of(bag, topics)
    assert 0.4 * count < len(frames) < 0.6 * count
    assert np.allclose(frames[4].T_map_cam, make_bag.poses[frames[4].stamp_ns])
    assert any("truncated" in text for text in source.report.sentences())


@pytest.mark.parametrize("kept", [40, 1500])  # within the header; after it, before the first message
def test_mcap_cut_before_its_first_message_is_called_truncated(make_bag, topics, kept):
    bag = make_bag(frames=20)
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(Motion4DError, match="truncated"):
        open_source(bag, topics)


def test_topic_that_may_have_been_in_the_lost_part(make_bag, topics):
    bag = make_bag(frames=20)
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:40_000])
    topics.masks = "/camera/labels"
    with pytest.raises(Motion4DError, match=r"/camera/labels: no such topic.*truncated: only its beginning"):
        open_source(bag, topics)


@pytest.mark.parametrize("metadata", [True, False])
def test_truncated_sqlite_says_how_to_recover_it(make_bag, topics, metadata):
    bag = make_bag(frames=20, storage="sqlite3")
    file = next(bag.glob("*.db3"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    if not metadata:
        (bag / "metadata.yaml").unlink()
    with pytest.raises(Motion4DError, match=rf"truncated: {len(content) // 2} of {len(content)} bytes.*\.recover"):
        open_source(bag, topics)


@pytest.mark.parametrize("compression", [None, "BZ2", "LZ4"])
@pytest.mark.parametrize("name", ["bag.bag", "bag.bag.active"])
def test_truncated_ros1_bag_gives_its_beginning(make_bag, topics, tmp_path, compression, name):
    count = 160
    bag = make_bag(frames=count, storage="ros1", ros1_compression=compression)
    content = bag.read_bytes()
    bag = bag.rename(tmp_path / name)
    bag.write_bytes(content[: len(content) // 2])
    frames, source = frames_of(bag, topics)
    assert (0.4 if compression is None else 0.0) * count < len(frames) < 0.6 * count
    assert np.allclose(frames[4].T_map_cam, make_bag.poses[frames[4].stamp_ns])
    assert (frames[4].masks == 3).any()
    assert any("truncated" in text for text in source.report.sentences())
    assert bag.stat().st_size == len(content) // 2  # the bag itself stays as it is


def test_ros1_bag_cut_at_every_place_is_one_line_or_its_beginning(make_bag, topics):
    bag = make_bag(frames=6, storage="ros1")
    content = bag.read_bytes()
    best = 0
    for kept in range(0, len(content), 997):
        bag.write_bytes(content[:kept])
        try:
            frames, source = frames_of(bag, topics)
        except Motion4DError as error:
            assert "\n" not in str(error) and best == 0
        else:
            assert source.report.truncated and best <= len(frames) <= 6
            best = len(frames)
    assert best == 6


@pytest.mark.parametrize("content", [b"", b"\x89MCAP0\r\n", b"not a bag at all" * 50])
def test_rubbish_instead_of_a_bag(tmp_path, content):
    file = tmp_path / "x.mcap"
    file.write_bytes(content)
    with pytest.raises(Motion4DError, match=r"x\.mcap"):
        open_source(file, SourceOptions())


def test_storage_file_of_a_bag_alone(make_bag, topics, tmp_path):
    shutil.copy(next(make_bag().glob("*.mcap")), tmp_path / "alone.mcap")
    assert len(frames_of(tmp_path / "alone.mcap", topics)[0]) == 10


def test_shared_scene(shared_data, topics):
    frames, source = frames_of(shared_data / "scenes" / "tabletop" / "bag", topics)
    with np.load(shared_data / "scenes" / "tabletop" / "gt.npz") as truth:
        assert np.array_equal(np.stack([f.image for f in frames]), truth["images"])
        assert np.array_equal(np.stack([f.masks for f in frames]), truth["in_masks"])
        assert np.allclose(np.stack([f.T_map_cam for f in frames]), truth["T_wc"], atol=1e-6)
    assert not source.report.warnings
