"""What a run says of the files that it found; and links, which must neither multiply files nor go round in circles."""

import os
import shutil
from pathlib import Path

import pytest

from tests.utils.data.helpers import picture, png, refused_set
from utils.data import image_files
from utils.data.datasets import load
from utils.data.files import folder_files
from utils.data.image_files import OwnImages


def write(root: Path, files: dict[str, bytes]) -> OwnImages:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return OwnImages("folder", root=str(root), resolution=16, fit="crop")


def test_the_notes_say_what_was_found(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "FEW", 0)
    files = {
        "a/0.png": png(picture(0, (16, 24))),
        "a/1.png": png(picture(1, (40, 30), "RGBA")),
        "b/2.png": png(picture(2, (8, 8), "L")),
        "b/copy.png": png(picture(2, (8, 8), "L")),
        "b/broken.png": b"junk",
        "b/notes.txt": b"",
        "b/more.txt": b"",
        "README": b"",
    }
    assert load(write(tmp_path, files), 0).notes == (
        "Left out, for their suffix is no image's: 2 .txt, 1 no suffix ('b/more.txt', 'b/notes.txt', 'README').",
        "Left out, for they cannot be read as images: 'b/broken.png'.",
        f"'{tmp_path}': 4 images from 8x8 to 40x30 pixels, in colour (Pillow's modes: 2 L, 1 RGB, 1 RGBA).",
        "1 file has the same bytes as another one, such as 'b/2.png' and 'b/copy.png': copies may lie on both sides "
        "of a held-out split.",
        "2 classes, with images of each: a 2, b 2.",
        "Nothing is held out: data.validation is 0.05, of 4 images.",
    )


def test_images_outside_of_the_class_folders_are_named(tmp_path):
    names = ["a/0.png", "b/1.png", *(f"stray{i}.png" for i in range(5))]
    data = load(write(tmp_path, {name: png(picture(i)) for i, name in enumerate(names)}), 0)
    assert data.classes == 0
    want = (
        "No classes: 'stray0.png', 'stray1.png', 'stray2.png' and 2 more lie outside of the sub-folders ('a', 'b'); "
        "move them there for classes."
    )
    assert want in data.notes


def test_a_set_that_is_too_small_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "FEW", 5)
    config = write(tmp_path, {f"{i}.png": png(picture(i)) for i in range(4)})
    assert any("4 images are few to train on" in note for note in load(config, 0).notes)
    write(tmp_path, {"4.png": png(picture(4))})
    assert not any("few to train on" in note for note in load(config, 0).notes)


def test_many_classes_are_not_all_listed(tmp_path):
    names = [f"{i:02d}/0.png" for i in range(image_files.CLASSES_SHOWN + 2)]
    data = load(write(tmp_path, {name: png(picture(0)) for name in names}), 0)
    assert any(note.startswith("22 classes") and note.endswith("19 1, and 2 more.") for note in data.notes)


def test_a_set_of_unreadable_files_is_refused(tmp_path):
    message = refused_set(write(tmp_path, {"0.png": b"junk", "1.png": b""}))
    assert "'0.png', '1.png'" in message


# --- Links


@pytest.fixture
def eight(tmp_path):
    """Eight images in two folders of classes."""
    root = tmp_path / "set"
    write(root, {f"{'ab'[i % 2]}/{i}.png": png(picture(i)) for i in range(8)})
    return root


def names_in(root: Path) -> list[str]:
    return folder_files(root).names


def test_links_to_folders_above_end(eight):
    want = names_in(eight)
    assert len(want) == 8
    for name, target in (("a/up", eight), ("a/up2", eight.parent), ("b/round", eight / "a"), ("itself", eight)):
        (eight / name).symlink_to(target, target_is_directory=True)
    assert names_in(eight) == want


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_file_counts_once_and_under_the_name_that_is_no_link(eight, link):
    link(eight / "b/1.png", eight / "a/0-first.png")
    files = folder_files(eight)
    assert len(files.names) == 8
    assert files.notes == ("1 file was reached a second time through links: each counts once.",)
    if link is os.symlink:
        assert "b/1.png" in files.names


def test_linked_files_and_folders_from_elsewhere_are_read(eight, tmp_path):
    pool = tmp_path / "pool"
    write(pool, {"x/0.png": png(picture(20)), "x/1.png": png(picture(21))})
    (eight / "c").symlink_to(pool / "x", target_is_directory=True)
    (eight / "a/linked.png").symlink_to(shutil.copy(pool / "x/0.png", tmp_path / "other.png"))
    assert set(names_in(eight)) - {"c/0.png", "c/1.png", "a/linked.png"} == {f"{'ab'[i % 2]}/{i}.png" for i in range(8)}
    assert len(names_in(eight)) == 11


def test_a_link_to_nothing_is_named(eight):
    (eight / "a/gone.png").symlink_to(eight / "nowhere.png")
    message = refused_set(OwnImages("folder", root=str(eight), resolution=16))
    assert "'a/gone.png'" in message
