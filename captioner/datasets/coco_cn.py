"""COCO-CN: Chinese captions of COCO images, as text files (Li et al. 2019, arXiv:1805.08661).

``imageid.human-written-caption.txt`` with lines ``COCO_val2014_000000000042#0<TAB>caption``, beside the lists
``coco-cn_{train,val,test}.txt``. The images are those of COCO 2014, in ``train2014/`` and ``val2014/``,
or all together.
"""

import re
from pathlib import Path

from captioner.datasets.options import Source
from captioner.datasets.records import ALL, Record, inside, open_text, spaced, spoken

_CAPTIONS = "imageid.human-written-caption.txt"
_LINE = re.compile(r"(?P<name>(?:COCO_(?P<folder>[a-z]+2014)_)?[^#\s]+)#\d+\s+(?P<caption>.+)")


def read(source: Source, split: str) -> list[Record]:
    """Records of one split, in the order of its list; the id is the name of the image without its ending.

    Where there are no lists at all, a seeded share of the images is held out.

    Raises:
        DatasetError: a file is absent or cannot be read.
    """
    file = source.annotations_file((_CAPTIONS, f"*/{_CAPTIONS}"))
    images = source.image_folder(file)
    captions: dict[str, list[str]] = {}
    folders: dict[str, Path] = {}
    with open_text(file) as lines:
        for number, line in enumerate(lines, start=1):
            found = _LINE.fullmatch(line.strip())
            if found is None:
                if line.strip():
                    source.damage.append(f"{file}: line {number} is not 'image#0<TAB>caption'")
                continue
            captions.setdefault(found["name"], []).append(spaced(found["caption"]))
            part = (source.folder or images) / (found["folder"] or "")
            folders[found["name"]] = part if source.images is None and part.is_dir() else images
    lists = {own: file.parent / f"coco-cn_{own}.txt" for own in ("train", "val", "test")}
    there = [own for own, path in lists.items() if path.is_file()]
    wanted = there if split == ALL else [split]
    listed = [(own, name) for own in wanted for name in _listed(lists[own])] if there else [(ALL, n) for n in captions]
    records = [
        Record(name, inside(folders[name], f"{name}.jpg", file), texts, own)
        for own, name in listed
        if (texts := spoken(captions.get(name, [])))
    ]
    return source.divide(records, split)


def _listed(file: Path) -> list[str]:
    with open_text(file) as lines:
        return [line.strip() for line in lines if line.strip()]
