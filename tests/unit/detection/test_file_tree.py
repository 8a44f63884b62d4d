"""Paths from other machines find their files, and only files of the dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from detection.data.file_tree import FileTree, stem_of
from detection.data.records import Split
from detection.data.splits import split_of_folders, split_of_stem, split_of_word
from detection.errors import DatasetFormatError
from tests.datasets import write_files

NAMES = [
    "set/images/train/a.jpg",
    "set/images/val/a.jpg",
    "set/images/train/Only.PNG",
    "set/images/val/img.001.jpg",
    "other/b.jpg",
    "other/deep/b.jpg",
    "notes.txt",
]


@pytest.fixture
def tree(tmp_path: Path) -> FileTree:
    write_files(tmp_path / "root", dict.fromkeys(NAMES, b""))
    write_files(tmp_path, {"outside.jpg": b""})
    (tmp_path / "root" / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    return FileTree(tmp_path / "root")


def test_only_regular_files_below_the_root(tree: FileTree) -> None:
    assert tree.names == tuple(sorted(NAMES))
    assert "link.jpg" not in tree


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("set/images/train/a.jpg", "set/images/train/a.jpg"),
        ("images/val/a.jpg", "set/images/val/a.jpg"),
        ("/home/me/images/val/a.jpg", "set/images/val/a.jpg"),
        ("D:\\data\\train\\A.JPG", "set/images/train/a.jpg"),
        ("../../train/a.jpg", "set/images/train/a.jpg"),
        ("only.png", "set/images/train/Only.PNG"),
        ("elsewhere/only.png", "set/images/train/Only.PNG"),
        ("val/only.png", None),
        ("elsewhere/a.jpg", None),
        ("test/a.jpg", None),
        ("../outside.jpg", None),
        ("a.png", None),
        ("", None),
        ("notes.txt", None),
        ("other/b.jpg", "other/b.jpg"),
        ("b.jpg", "other/b.jpg"),
    ],
)
def test_pictures_by_path(tree: FileTree, wanted: str, found: str | None) -> None:
    assert tree.find_picture(wanted) == found


def test_a_name_may_begin_with_a_space_and_a_path_be_padded_with_some(tmp_path: Path) -> None:
    write_files(tmp_path, {"images/\u2003c.jpg": b"", "images/c.jpg": b"", "images/d.jpg": b""})
    tree = FileTree(tmp_path)
    assert tree.find_picture("\u2003c.jpg") == "images/\u2003c.jpg"
    assert tree.find_picture(" c.jpg ") == "images/c.jpg"
    assert tree.find_picture(" d.jpg\n") == "images/d.jpg"


def test_of_namesakes_the_split_then_the_nearest(tree: FileTree) -> None:
    assert tree.find_picture("a.jpg", split=Split.VAL) == "set/images/val/a.jpg"
    assert tree.find_picture("b.jpg", near="other/deep/labels.json") == "other/deep/b.jpg"
    assert tree.find_picture_by_stem("a", near="set/labels/val/a.xml") == "set/images/val/a.jpg"
    assert tree.find_picture_by_stem("a", near="set/labels/test/a.xml") is None
    assert tree.find_picture_by_stem("gone", near="") is None


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("images/train", "set/images/train"),
        ("../val/", "set/images/val"),
        ("/etc", None),
        (".", ""),
        ("..", ""),
        ("test/images", None),
        ("set", "set"),
    ],
)
def test_folders_by_path(tree: FileTree, wanted: str, found: str | None) -> None:
    assert tree.find_folder(wanted) == found


def test_pictures_below_a_folder(tree: FileTree) -> None:
    assert tree.pictures_below("other") == ("other/b.jpg", "other/deep/b.jpg")
    assert tree.pictures_below("other/deep") == ("other/deep/b.jpg",)
    assert tree.pictures_below("oth") == ()
    assert tree.pictures_below("") == tree.pictures


def test_namesakes_stand_in_one_folder(tmp_path: Path) -> None:
    tree = FileTree(write_files(tmp_path, dict.fromkeys(["x/a.jpg", "x/A.png", "y/a.jpg"], b"")))
    assert [tree.has_namesake(name) for name in tree.pictures] == [True, True, False]


def test_files_by_path(tree: FileTree) -> None:
    assert tree.find_file("/x/notes.txt") == "notes.txt"
    assert tree.find_file("otes.txt") is None


def test_size_and_text_are_checked(tree: FileTree) -> None:
    path = tree.path("notes.txt")
    path.write_bytes(b"\xef\xbb\xbfgr\xc3\xb6\xc3\x9fe")
    assert tree.read_text("notes.txt", max_bytes=99) == "größe"
    with pytest.raises(DatasetFormatError, match="at most 5"):
        tree.read("notes.txt", max_bytes=5)
    path.write_bytes(b"\xff")
    with pytest.raises(DatasetFormatError, match="UTF-8"):
        tree.read_text("notes.txt", max_bytes=99)


@pytest.mark.parametrize(
    ("name", "stem"), [("x/a.jpg", "a"), ("img.001", "img.001"), ("img.001.txt", "img.001"), ("a.XML", "a")]
)
def test_stems(name: str, stem: str) -> None:
    assert stem_of(name) == stem


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("train", Split.TRAIN),
        ("Training", Split.TRAIN),
        ("trainval", Split.TRAIN),
        ("train2017", Split.TRAIN),
        ("valid", Split.VAL),
        ("VALIDATION", Split.VAL),
        ("test", Split.TEST),
        ("trains", None),
        ("images", None),
    ],
)
def test_words_fold_to_splits(word: str, split: Split | None) -> None:
    assert split_of_word(word) is split
    assert split_of_folders(f"data/{word}/images/x.jpg") is split


def test_names_fold_to_splits() -> None:
    assert split_of_stem("instances_val2017") is Split.VAL
    assert split_of_stem("_annotations.coco") is None
    assert split_of_stem("my-test-set") is Split.TEST
    assert split_of_folders("train/val/x.jpg") is Split.VAL
    assert split_of_folders("train.jpg") is None
