"""A small folder of every kind of data set, as it is published: 8 images to train on and 4 to validate on.

Each function writes one, of drawings that are the same for all, and returns how many images are in the splits.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training.shapes import captions, draw, drawings, write_coco, write_flickr8k, write_karpathy, write_table

DRAWN = drawings(12)
STEMS = [f"{1000 + number}" for number in range(12)]
TEXTS = [captions(colour, shape) for _, colour, shape, _ in DRAWN]
SPLITS = ["train"] * 8 + ["val"] * 4


def draw_as(folder: Path, number: int, name: str) -> str:
    """One of the drawings under another name."""
    _, colour, shape, seed = DRAWN[number]
    draw(folder / name, colour, shape, seed)
    return name


def write_json(file: Path, contents: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(contents, ensure_ascii=False), encoding="utf-8")


def coco_like(folder: Path, name: str, images: str, numbers: range, extra: dict[str, Any] | None = None) -> None:
    """A file in COCO's format of some drawings, which lie in a folder of their own."""
    listed = [{"id": n, "file_name": draw_as(folder / images, n, f"{STEMS[n]}.png"), **(extra or {})} for n in numbers]
    texts = [{"id": n, "image_id": n, "caption": text} for n in numbers for text in TEXTS[n]]
    write_json(folder / name, {"images": listed, "annotations": texts})


def vizwiz(folder: Path) -> None:
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        coco_like(folder, f"annotations/{split}.json", split, numbers)
        file = folder / "annotations" / f"{split}.json"
        contents = json.loads(file.read_text())
        for annotation in contents["annotations"]:
            annotation |= {"is_rejected": False, "is_precanned": False, "text_detected": False}
        spam = {"image_id": numbers[0], "id": 99, "caption": "asdf", "is_precanned": False, "is_rejected": True}
        canned = {**spam, "caption": "Quality issues are too severe.", "is_rejected": False, "is_precanned": True}
        write_json(file, {**contents, "annotations": [*contents["annotations"], spam, canned]})


def nocaps(folder: Path) -> None:
    coco_like(folder, "nocaps_val_4500_captions.json", "images", range(8, 12))
    file = folder / "nocaps_val_4500_captions.json"
    contents = json.loads(file.read_text())
    for place, image in enumerate(contents["images"]):
        image |= {"domain": "in-domain" if place < 2 else "out-domain", "open_images_id": image["file_name"][:-4]}
    write_json(file, contents)


def stair(folder: Path) -> None:
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        coco_like(folder, f"stair_captions_v1.2_{split}.json", f"{split}2014", numbers)
        file = folder / f"stair_captions_v1.2_{split}.json"
        contents = json.loads(file.read_text())
        for annotation in contents["annotations"]:
            annotation["caption"] = "白い地面の上の" + ("丸" if "circle" in annotation["caption"] else "四角")
        write_json(file, contents)


def coco_cn(folder: Path) -> None:
    lines, lists = [], {"train": "", "val": "", "test": "COCO_val2014_000000009999\n"}
    for number, split in enumerate(SPLITS):
        name = f"COCO_{split}2014_{number:012d}"
        draw_as(folder / f"{split}2014", number, f"{name}.jpg")
        lines.append(f"{name}#0\t白色地面上的{'圆' if DRAWN[number][2] == 'circle' else '方'}形。\n")
        lists[split] += f"{name}\n"
    (folder / "imageid.human-written-caption.txt").write_text("".join(lines), encoding="utf-8")
    for split, names in lists.items():
        (folder / f"coco-cn_{split}.txt").write_text(names)


def textcaps(folder: Path) -> None:
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        data = []
        for number in numbers:
            name = draw_as(folder / "train_images", number, f"{STEMS[number]}.jpg")
            facts = {"image_id": name[:-4], "image_name": name[:-4], "image_path": f"train/{name}", "set_name": split}
            data += [{**facts, "caption_str": text, "reference_strs": TEXTS[number]} for text in TEXTS[number]]
        write_json(folder / f"TextCaps_0.1_{split}.json", {"dataset_name": "textcaps", "data": data})


def flickr30k(folder: Path) -> None:
    rows = ["image_name| comment_number| comment\n"]
    for number, texts in enumerate(TEXTS):
        name = draw_as(folder / "flickr30k_images", number, f"{STEMS[number]}.jpg")
        rows += [f"{name}| {nth}| {text}\n" for nth, text in enumerate(texts)]
    rows[3] = rows[3].replace("| 0| ", "| 0   ")  # as 2199200615.jpg has it
    (folder / "results.csv").write_text("".join(rows))
    (folder / "train.txt").write_text("".join(f"{stem}\n" for stem in STEMS[:8]))
    (folder / "val.txt").write_text("".join(f"{stem}\n" for stem in STEMS[8:]))


def flickr8k_of_kaggle(folder: Path) -> None:
    out = io.StringIO(newline="")
    rows = csv.writer(out)
    rows.writerow(["image", "caption"])
    for number, texts in enumerate(TEXTS):
        name = draw_as(folder / "Images", number, f"{STEMS[number]}.jpg")
        rows.writerows([name, text.replace(" on", ", on")] for text in texts)
    (folder / "captions.txt").write_text(out.getvalue())


def imagefolder(folder: Path) -> None:
    for split, numbers in (("train", range(8)), ("validation", range(8, 12))):
        rows = [
            {"file_name": draw_as(folder / split, number, f"{number}.png"), "text": text}
            for number in numbers
            for text in TEXTS[number]
        ]
        (folder / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def sidecars(folder: Path) -> None:
    for number, split in enumerate(SPLITS):
        image = folder / split / draw_as(folder / split, number, f"{number}.png")
        image.with_suffix(".txt" if number % 2 else ".caption").write_text("\n".join(TEXTS[number]) + "\n")


def write_tar(file: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def webdataset(folder: Path) -> None:
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        members = {}
        for number in numbers:
            path = folder / draw_as(folder, number, "image.jpg")
            members[f"{number:09d}.jpg"] = path.read_bytes()
            if number % 2:
                members[f"{number:09d}.txt"] = "\n".join(TEXTS[number]).encode()
            members[f"{number:09d}.json"] = json.dumps({"caption": TEXTS[number], "key": str(number)}).encode()
            path.unlink()
        write_tar(folder / f"{split}-00000.tar", members)


def karpathy_as_for_coco(folder: Path) -> None:
    """With ``filepath``, ``cocoid``, ``restval``, and images whose split is absent."""
    images: list[dict[str, Any]] = []
    for number, split in enumerate(["train", "restval"] * 4 + ["val"] * 4):
        place = "train2014" if split == "train" else "val2014"
        name = draw_as(folder / place, number, f"COCO_{place}_{number:012d}.jpg")
        sentences = [{"raw": text} for text in TEXTS[number]]
        images.append({"filename": name, "filepath": place, "cocoid": number, "split": split, "sentences": sentences})
    write_json(folder / "dataset_coco.json", {"images": images, "dataset": "coco"})


KINDS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "coco": ("coco", lambda folder: write_coco(folder, 8, 4)),
    "karpathy": ("karpathy", lambda folder: write_karpathy(folder, 8, 4)),
    "karpathy of coco": ("karpathy", karpathy_as_for_coco),
    "flickr8k": ("flickr8k", lambda folder: write_flickr8k(folder, 8, 4)),
    "flickr8k of kaggle": ("flickr8k", flickr8k_of_kaggle),
    "flickr30k": ("flickr30k", flickr30k),
    "vizwiz": ("vizwiz", vizwiz),
    "textcaps": ("textcaps", textcaps),
    "nocaps": ("nocaps", nocaps),
    "stair": ("stair", stair),
    "coco-cn": ("coco-cn", coco_cn),
    "table": ("table", lambda folder: write_table(folder, 8, 4)),
    "imagefolder": ("imagefolder", imagefolder),
    "sidecars": ("sidecars", sidecars),
    "webdataset": ("webdataset", webdataset),
}
