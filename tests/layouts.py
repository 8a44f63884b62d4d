"""Small datasets laid out as other programs export them, with what an import should make of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from zlib import crc32

from tests.datasets import coco_box, coco_image, coco_json, picture, voc_object, voc_xml

Files = dict[str, bytes]

ROW = "0 0.5 0.5 0.4 0.5\n"
ROWS = ROW + "1 0.25 0.25 0.2 0.2\n"
EDGES = (30, 20, 70, 60)
"""Of the box in ROW, in pixels of a picture of 100×80."""
BBOX = [30, 20, 40, 40]
"""The same as COCO writes it."""
NAMES = {1: "cat", 2: "dog"}
CAT = voc_object("cat", *EDGES)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """An unpacked export, and the dataset that it is."""

    files: Mapping[str, bytes]
    format: str
    splits: Mapping[str, int]
    """Pictures of each split, before a validation split is cut."""
    boxes: int
    classes: tuple[str, ...] = ("cat", "dog")
    findings: Mapping[str, int] = field(default_factory=dict)


def layouts() -> dict[str, Layout]:
    """Return every layout by name."""
    return {
        "roboflow yolo": _roboflow_yolo(),
        "roboflow coco": _roboflow_coco(),
        "roboflow voc": _roboflow_voc(),
        "roboflow darknet": _roboflow_darknet(),
        "label studio yolo": _label_studio_yolo(),
        "label studio coco": _label_studio_coco(),
        "label studio voc": _label_studio_voc(),
        "cvat coco": _cvat_coco(),
        "cvat yolo 1.1": _cvat_yolo(),
        "cvat ultralytics": _cvat_ultralytics(),
        "cvat voc": _cvat_voc(),
        "labelimg voc": _labelimg(),
        "coco of the original": _original_coco(),
        "subfolders with namesakes": _subfolders(),
        "windows": _windows(),
        "desktop junk and a top folder": _mac(),
        "pictures and labels without the other": _halves(),
        "case only": _case_only(),
    }


def _pictures(*names: str) -> Files:
    return {name: picture(seed=crc32(name.encode())) for name in names}


def _text(files: Mapping[str, str]) -> Files:
    return {name: content.encode() for name, content in files.items()}


def _roboflow_yolo() -> Layout:
    stems = {"train": ["a_jpg.rf.0f1", "b_png.rf.9c2"], "valid": ["c_jpg.rf.77e"], "test": ["d_jpg.rf.5b0"]}
    files: Files = {}
    for folder, names in stems.items():
        files |= _pictures(*(f"{folder}/images/{name}.jpg" for name in names))
        files |= _text({f"{folder}/labels/{name}.txt": ROWS for name in names})
    files |= _text(
        {
            "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\n"
            "names: ['cat', 'dog']\n\nroboflow:\n  workspace: zoo\n  project: pets\n  version: 1\n"
            "  license: CC BY 4.0\n  url: https://universe.example/zoo/pets/1\n",
            "README.dataset.txt": "# pets > 2026-01-01\nhttps://universe.example\n",
            "README.roboflow.txt": "\npets - v1\n==============================\n",
        }
    )
    return Layout(files=files, format="yolo", splits={"train": 2, "val": 1, "test": 1}, boxes=8)


def _roboflow_coco() -> Layout:
    """Category 0 is the group of all others; no box has it."""
    files: Files = {}
    for folder in ("train", "valid"):
        files |= _pictures(f"{folder}/x_jpg.rf.1.jpg", f"{folder}/y_jpg.rf.2.jpg")
        document = {
            "info": {"year": "2026", "version": "1"},
            "licenses": [{"id": 1, "url": "", "name": "MIT"}],
            "categories": [
                {"id": 0, "name": "pets", "supercategory": "none"},
                {"id": 1, "name": "cat", "supercategory": "pets"},
                {"id": 2, "name": "dog", "supercategory": "pets"},
            ],
            "images": [
                {"id": number, "license": 1, "file_name": name, "height": 80, "width": 100}
                for number, name in enumerate(("x_jpg.rf.1.jpg", "y_jpg.rf.2.jpg"))
            ],
            "annotations": [
                coco_box(0, 0, 1, BBOX, segmentation=[], iscrowd=0),
                coco_box(1, 1, 2, BBOX, segmentation=[], iscrowd=0),
            ],
        }
        files[f"{folder}/_annotations.coco.json"] = json.dumps(document).encode()
    return Layout(
        files=files,
        format="coco",
        splits={"train": 2, "val": 2},
        boxes=4,
        classes=("pets", "cat", "dog"),
        findings={"class_without_boxes": 1},
    )


def _roboflow_voc() -> Layout:
    files: Files = {}
    for folder in ("train", "valid"):
        files |= _pictures(f"{folder}/x_jpg.rf.1.jpg")
        content = voc_xml(CAT, voc_object("dog", *EDGES), filename="x_jpg.rf.1.jpg")
        files[f"{folder}/x_jpg.rf.1.xml"] = content.encode()
    return Layout(files=files, format="voc", splits={"train": 1, "val": 1}, boxes=4)


def _roboflow_darknet() -> Layout:
    files: Files = {}
    for folder in ("train", "valid"):
        files |= _pictures(f"{folder}/x.jpg") | _text({f"{folder}/x.txt": ROWS.rstrip("\n")})
        files[f"{folder}/_darknet.labels"] = b"cat\ndog"
    return Layout(files=files, format="yolo", splits={"train": 1, "val": 1}, boxes=4)


def _label_studio_yolo() -> Layout:
    files = _pictures("images/0a1b2c3d-a.jpg", "images/4e5f6a7b-b_1.jpg")
    files |= _text(
        {"labels/0a1b2c3d-a.txt": ROWS, "labels/4e5f6a7b-b_1.txt": ROW, "classes.txt": "cat\ndog\n"}
    )
    notes = {"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}], "info": {"year": 2026}}
    return Layout(
        files=files | {"notes.json": json.dumps(notes).encode()}, format="yolo", splits={"train": 2}, boxes=3
    )


def _label_studio_coco() -> Layout:
    """The paths are those of the machine where it ran; ids count from 0."""
    files = _pictures("images/0a1b-a.jpg", "images/4e5f-b.jpg")
    images = [coco_image(0, "images\\0a1b-a.jpg"), coco_image(1, "/data/upload/1/images/4e5f-b.jpg")]
    boxes = [coco_box(0, 0, 0, BBOX, ignore=0), coco_box(1, 1, 1, BBOX, ignore=0)]
    document = coco_json(images, boxes, {0: "cat", 1: "dog"})
    return Layout(
        files=files | {"result.json": document.encode()}, format="coco", splits={"train": 2}, boxes=2
    )


def _label_studio_voc() -> Layout:
    files = _pictures("images/0a1b-a.jpg", "images/4e5f-b.jpg")
    for stem, objects in (("0a1b-a", (CAT,)), ("4e5f-b", (CAT, voc_object("dog", *EDGES)))):
        files[f"Annotations/{stem}.xml"] = voc_xml(*objects, filename=stem).encode()
    return Layout(files=files, format="voc", splits={"train": 2}, boxes=3)


def _cvat_coco() -> Layout:
    files = _pictures("images/default/frame_000000.PNG", "images/default/frame_000001.PNG")
    images = [coco_image(n + 1, f"frame_00000{n}.PNG") | {"license": 0, "date_captured": 0} for n in range(2)]
    attributes = {"occluded": False, "rotation": 0.0, "track_id": 0, "keyframe": True}
    boxes = [coco_box(n, n, n, [30.0, 20.0, 40.0, 40.0], attributes=attributes, iscrowd=0) for n in (1, 2)]
    return Layout(
        files=files | {"annotations/instances_default.json": coco_json(images, boxes, NAMES).encode()},
        format="coco",
        splits={"train": 2},
        boxes=2,
    )


def _cvat_yolo() -> Layout:
    files = _pictures("obj_train_data/frame_000000.jpg", "obj_train_data/frame_000001.jpg")
    files |= _text(
        {
            "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
            "obj.names": "cat\ndog\n",
            "train.txt": "data/obj_train_data/frame_000000.jpg\ndata/obj_train_data/frame_000001.jpg\n",
            "obj_train_data/frame_000000.txt": ROWS,
            "obj_train_data/frame_000001.txt": "",
        }
    )
    return Layout(files=files, format="yolo", splits={"train": 2}, boxes=2)


def _cvat_ultralytics() -> Layout:
    files = _pictures("images/train/a.jpg", "images/validation/b.jpg")
    files |= _text(
        {
            "data.yaml": "names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\nval: validation.txt\n",
            "train.txt": "data/images/train/a.jpg\n",
            "validation.txt": "data/images/validation/b.jpg\n",
            "labels/train/a.txt": ROWS,
            "labels/validation/b.txt": ROW,
        }
    )
    return Layout(files=files, format="yolo", splits={"train": 1, "val": 1}, boxes=3)


def _cvat_voc() -> Layout:
    """Its one list is called after the subset, which is no split; masks come along."""
    files = _pictures("JPEGImages/f0.jpg", "JPEGImages/f1.jpg", "SegmentationClass/f0.png")
    for stem in ("f0", "f1"):
        files[f"Annotations/{stem}.xml"] = voc_xml(
            CAT, voc_object("dog", *EDGES), filename=f"{stem}.jpg"
        ).encode()
    files |= _text(
        {
            "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\n",
            "ImageSets/Main/default.txt": "f0\nf1\n",
            "ImageSets/Segmentation/default.txt": "f0\n",
        }
    )
    return Layout(files=files, format="voc", splits={"train": 2}, boxes=4)


def _labelimg() -> Layout:
    """XML beside the pictures, copied from another: file name and size are those of the original."""
    files = _pictures("set/one.JPEG", "set/two.Jpg")
    files["set/one.xml"] = voc_xml(CAT, filename="one.JPEG", head='<?xml version="1.0"?>\n').encode()
    files["set/two.XML"] = voc_xml(
        voc_object("dog", *EDGES), filename="old.jpg", width=640, height=480
    ).encode()
    return Layout(
        files=files, format="voc", splits={"train": 2}, boxes=2, findings={"image_size_mismatch": 1}
    )


def _original_coco() -> Layout:
    files: Files = {}
    for year in ("train2017", "val2017"):
        names = [f"{number:012d}.jpg" for number in (9, 25)]
        files |= _pictures(*(f"{year}/{name}" for name in names))
        images = [coco_image(number, f"{number:012d}.jpg") for number in (9, 25)]
        boxes = [coco_box(1, 9, 1, BBOX), coco_box(2, 25, 2, BBOX, iscrowd=1, segmentation={"counts": [1]})]
        files[f"annotations/instances_{year}.json"] = coco_json(images, boxes, NAMES).encode()
        files[f"annotations/captions_{year}.json"] = coco_json(images, []).encode()
    return Layout(
        files=files, format="coco", splits={"train": 2, "val": 2}, boxes=4, findings={"file_ignored": 2}
    )


def _subfolders() -> Layout:
    files: Files = {}
    for room in ("hall", "yard"):
        files |= _pictures(f"images/train/{room}/1.jpg", f"images/val/{room}/1.jpg")
        files |= _text({f"labels/{split}/{room}/1.txt": ROWS for split in ("train", "val")})
    config = "path: /home/me/pets\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n"
    return Layout(
        files=files | {"data.yaml": config.encode()}, format="yolo", splits={"train": 2, "val": 2}, boxes=8
    )


def _windows() -> Layout:
    """Byte order marks, CRLF, capitals, a drive."""
    mark = b"\xef\xbb\xbf"
    config = (
        "path: D:\\sets\\pets\r\ntrain: Images\\Train\r\nval: Images\\Val\r\nnames:\r\n- cat\r\n- dog\r\n"
    )
    files = _pictures("Images/Train/A.JPG", "Images/Val/B.JPG") | {"data.yaml": mark + config.encode()}
    files |= {
        "Labels/Train/a.txt": mark + ROWS.replace("\n", "\r\n").encode(),
        "Labels/Val/B.TXT": ROW.replace("\n", "\r\n").encode(),
    }
    return Layout(files=files, format="yolo", splits={"train": 1, "val": 1}, boxes=3)


def _mac() -> Layout:
    files: Files = {}
    for name, content in _cvat_ultralytics().files.items():
        files |= {f"my set/{name}": content, f"__MACOSX/my set/{name}": b"\0\5\x16\7"}
        folder, _, last = f"my set/{name}".rpartition("/")
        files |= {f"{folder}/._{last}": b"\0\5\x16\7", f"{folder}/.DS_Store": b"\0\0\0\1Bud1"}
    return Layout(files=files, format="yolo", splits={"train": 1, "val": 1}, boxes=3)


def _halves() -> Layout:
    files = _pictures("images/both.jpg", "images/alone.jpg")
    files |= _text({"labels/both.txt": ROWS, "labels/gone.txt": ROW, "classes.txt": "cat\ndog\nbird"})
    return Layout(
        files=files,
        format="yolo",
        splits={"train": 2},
        boxes=2,
        classes=("cat", "dog", "bird"),
        findings={"image_missing": 1, "image_unlabelled": 1, "class_without_boxes": 1},
    )


def _case_only() -> Layout:
    files = _pictures("images/a.jpg", "images/A.jpg")
    files |= _text({"labels/a.txt": ROW, "labels/A.txt": ROWS, "classes.txt": "cat\ndog"})
    return Layout(files=files, format="yolo", splits={"train": 2}, boxes=3)
