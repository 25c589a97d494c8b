"""TextCaps: captions of images that contain text (Sidorov et al. 2020, arXiv:2003.12462).

``TextCaps_0.1_{train,val}.json`` has a list ``data`` with one entry a caption, each with all captions of its image as
``reference_strs``. The ids are texts. The images are those of TextVQA, in ``train_images/`` or as their paths say.
"""

from pathlib import Path

from captioner.datasets.options import Source
from captioner.datasets.records import ALL, Record, inside, read_json, split_in, spoken
from captioner.errors import DatasetError, NoDatasetError

_FOLDERS = ("train_images", "train_val_images", "images")


def read(source: Source, split: str) -> list[Record]:
    """Records of one split, in the order in which their images first appear.

    Raises:
        DatasetError: a file is absent or malformed, or an entry lacks its image or its captions.
    """
    place = source.captions_place()
    files = [place] if place.is_file() else sorted(place.glob("TextCaps_*_*.json"))
    if not files:
        raise NoDatasetError(f"{place}: holds no TextCaps_0.1_train.json or TextCaps_0.1_val.json")
    records: dict[str, Record] = {}
    for file in files:
        if split in (split_in(file.stem), ALL):
            _read_file(source, file, records)
    return [record for record in records.values() if split in (record.split, ALL)]


def _read_file(source: Source, file: Path, records: dict[str, Record]) -> None:
    contents = read_json(file)
    entries = contents.get("data") if isinstance(contents, dict) else None
    if not isinstance(entries, list):
        raise DatasetError(f"{file}: not a TextCaps file (an object with a list 'data' is expected)")
    folder = source.image_folder(file, _FOLDERS)
    for position, entry in enumerate(entries):
        where = f"{file}: data[{position}]"
        name = entry.get("image_id") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise DatasetError(f"{where} lacks a text 'image_id'")
        known = records[name].captions if name in records else ()
        # Each entry repeats all captions of its image, or has its own alone.
        captions = entry.get("reference_strs") or [*known, entry.get("caption_str", "")]
        if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
            raise DatasetError(f"{where} has no list of texts as its 'reference_strs'")
        if texts := spoken(captions):
            records[name] = Record(name, _image(folder, entry, name, file), texts, split_in(file.stem))


def _image(folder: Path, entry: dict[str, object], name: str, file: Path) -> Path:
    """In the folder itself, or where the entry says (``train/0054c91397f2fe05.jpg``)."""
    flat = inside(folder, f"{entry.get('image_name') or name}".removesuffix(".jpg") + ".jpg", file)
    path = entry.get("image_path")
    nested = inside(folder, path, file) if isinstance(path, str) and path else flat
    return nested if nested.is_file() else flat
