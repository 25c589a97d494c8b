"""Every kind of data set: read, described, trained on for two steps and evaluated."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from captioner.cli import main
from captioner.datasets import DatasetOptions, Record, present, read_each, read_records
from captioner.errors import DatasetError
from captioner.images import open_image
from tests.datasets import kinds
from tests.datasets.kinds import KINDS, STEMS, TEXTS, write_tar


def options(kind: str, folder: Path, **more: Any) -> DatasetOptions:
    return DatasetOptions((f"{kind}:{folder}",), **more)


def written(folder: Path, name: str) -> DatasetOptions:
    folder.mkdir()
    kind, write = KINDS[name]
    write(folder)
    return options(kind, folder, holdout=0.33)


def captions_of(records: list[Record]) -> dict[Any, tuple[str, ...]]:
    return {record.image_id: record.captions for record in records}


@pytest.fixture(scope="module")
def small(checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.small_model import save_with_graphs  # imports torch, which reading does without

    return save_with_graphs(tmp_path_factory.mktemp("checkpoint") / "small.safetensors", checkpoint)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_trained_on_for_two_steps_and_evaluated(
    name: str,
    tmp_path: Path,
    cache: Path,
    small: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """nocaps has nothing to train on, and is evaluated only."""
    monkeypatch.setattr("captioner.training.folder.Log._plot", lambda _journal: None)
    monkeypatch.setattr("captioner.training.trainer.graphs_of", lambda *_, **__: None)
    dataset = written(tmp_path / "data", name)
    given = [f"--dataset={dataset.dataset[0]}", "--holdout=0.33"]
    if name != "nocaps":
        tiny = ["--encoder=efficientnet_lite0", "--image-size=64", "--hidden-size=8", "--embedding-size=8"]
        run = ["--min-count=1", "--epochs=1", "--batch-size=4", "--device=cpu", "--precision=fp32", f"--cache={cache}"]
        assert main(["train", *given, *tiny, *run, "--output", str(tmp_path / "model.safetensors")]) == 0
        said = capsys.readouterr().err
        kind = dataset.dataset[0].partition(":")[0]
        assert f"{kind}: 8 photos" in said  # two steps of four images
        assert "epoch 1: loss " in said
    assert main(["evaluate", *given, "--weights", str(small), "--json", "--bootstrap=0", "--no-meteor"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 4
    assert ("domains" in found) == (name == "nocaps")


@pytest.mark.parametrize("name", KINDS)
def test_captioner_data_names_the_kind_its_splits_and_how_to_use_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kind, folder) = written(tmp_path / "data", name).dataset[0].split(":")
    assert main(["data", folder]) == 0
    said = capsys.readouterr().out
    assert f"{kind} in {folder}\n" in said
    assert f"--dataset {kind}:{folder}" in said
    assert "absent" not in said


def test_flickr30k_reads_the_row_without_its_second_stroke(tmp_path: Path) -> None:
    read = captions_of(read_records(written(tmp_path / "data", "flickr30k"), "all"))
    assert read == {f"{stem}.jpg": tuple(texts) for stem, texts in zip(STEMS, TEXTS, strict=True)}


def test_flickr30k_as_a_token_file_without_lists_is_divided(tmp_path: Path) -> None:
    lines = [
        f"{stem}.jpg#{nth}\t{text}\n"
        for stem, texts in zip(STEMS, TEXTS, strict=True)
        for nth, text in enumerate(texts)
    ]
    (tmp_path / "results_20130124.token").write_text("".join(lines))
    parts = {split: read_records(options("flickr30k", tmp_path), split) for split in ("train", "val")}
    assert [len(part) for part in parts.values()] == [10, 2]


DAMAGED = {
    "flickr30k": (
        "results.csv",
        "a.jpg| 0| A dog.\nb.jpg| 0|\nrubbish\n",
        "image_name| comment_number| comment\n",
        [3, 4],
    ),
    "flickr8k": ("captions.txt", "a.jpg,A dog.\nb.jpg\n,A cat.\n", "image,caption\n", [3, 4]),
    "imagefolder": ("metadata.csv", "a.jpg,A dog.\n,A cat.\n", "file_name,text\n", [3]),
}


def test_a_damaged_line_of_json_lines_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"file_name": "a.jpg", "text": "A dog."}, {"file_name": "b.jpg"}, {"file_name": "c.jpg", "text": None}]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert captions_of(read_records(options("imagefolder", tmp_path), "all")) == {"a.jpg": ("A dog.",)}
    said = capsys.readouterr().err
    assert "metadata.jsonl: line 2 lacks" in said
    assert "metadata.jsonl: line 3 lacks" in said


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_rows_are_named_by_file_and_line(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, rows, header, damaged = DAMAGED[kind]
    (tmp_path / name).write_text(header + rows)
    assert captions_of(read_records(options(kind, tmp_path), "all")) == {"a.jpg": ("A dog.",)}
    said = capsys.readouterr().err
    assert f"{kind}: left out {len(damaged)} damaged rows: " in said
    for line in damaged:
        assert f"{tmp_path / name}: line {line} lacks" in said
    assert main(["data", str(tmp_path)]) == 0
    assert f"{tmp_path / name}: line {damaged[0]} lacks" in capsys.readouterr().out


def test_coco_cn_names_damaged_lines_and_spaces_its_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = written(tmp_path / "data", "coco-cn")
    file = tmp_path / "data" / "imageid.human-written-caption.txt"
    file.write_text(file.read_text(encoding="utf-8") + "no number\n", encoding="utf-8")
    first, *_ = read_records(dataset, "train")
    assert (first.image_id, first.path.parent.name) == ("COCO_train2014_000000000000", "train2014")
    assert first.captions == ("白 色 地 面 上 的 方 形。",)
    assert f"{file}: line 13 is not" in capsys.readouterr().err


def test_stair_takes_the_words_of_the_tokenised_file_where_it_is(tmp_path: Path) -> None:
    dataset = written(tmp_path / "data", "stair")
    assert read_records(dataset, "val")[0].captions[0] == "白 い 地 面 の 上 の 四 角"
    for split in ("train", "val"):
        file = tmp_path / "data" / f"stair_captions_v1.2_{split}.json"
        contents = json.loads(file.read_text(encoding="utf-8"))
        for annotation in contents["annotations"]:
            annotation["tokenized_caption"] = "白い 地面 の 上 の 四角"
        kinds.write_json(file.with_name(f"{file.stem}_tokenized.json"), contents)
    assert read_records(dataset, "val")[0].captions[0] == "白い 地面 の 上 の 四角"


def test_vizwiz_leaves_out_rejected_and_precanned_captions(tmp_path: Path) -> None:
    read = read_records(written(tmp_path / "data", "vizwiz"), "all")
    assert [record.captions for record in read] == [tuple(texts) for texts in TEXTS]


def test_ids_that_are_texts(tmp_path: Path) -> None:
    dataset = written(tmp_path / "data", "textcaps")
    assert list(captions_of(read_records(dataset, "val"))) == STEMS[8:]
    contents = {
        "images": [{"id": "a7", "file_name": "7.png"}],
        "annotations": [{"image_id": "a7", "caption": "A dog."}],
    }
    kinds.write_json(tmp_path / "captions_val2017.json", contents)
    read = read_records(DatasetOptions(("coco",), annotations=str(tmp_path / "captions_val2017.json")), "val")
    assert captions_of(read) == {"a7": ("A dog.",)}


def test_textcaps_with_one_caption_an_entry(tmp_path: Path) -> None:
    data = [{"image_id": "x", "caption_str": text, "image_path": "train/x.jpg"} for text in ("One.", "Two.")]
    kinds.write_json(tmp_path / "TextCaps_0.1_val.json", {"data": data})
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "x.jpg").touch()
    (record,) = read_records(options("textcaps", tmp_path), "val")
    assert (record.captions, record.path) == (("One.", "Two."), tmp_path / "train" / "x.jpg")
    kinds.write_json(tmp_path / "TextCaps_0.1_val.json", {"data": [*data, {"image_id": 7}]})
    with pytest.raises(DatasetError, match=r"TextCaps_0.1_val.json: data\[2\] lacks a text 'image_id'"):
        read_records(options("textcaps", tmp_path), "val")


def test_coco_compressed_with_ids_of_two_types_and_paths_through_its_folder(tmp_path: Path) -> None:
    kinds.coco_like(tmp_path, "annotations/captions_val2017.json", "val2017", range(2))
    file = tmp_path / "annotations" / "captions_val2017.json"
    contents = json.loads(file.read_text())
    for annotation in contents["annotations"]:
        annotation["image_id"] = str(annotation["image_id"])
    for image in contents["images"]:
        image["file_name"] = f"val2017/{image['file_name']}"
    file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(json.dumps(contents).encode()))
    file.unlink()
    read = read_records(options("coco", tmp_path), "val")
    assert captions_of(read) == {0: tuple(TEXTS[0]), 1: tuple(TEXTS[1])}
    assert len(present(read, skip_missing=False)[0]) == 2
    named = DatasetOptions(("coco",), annotations=str(file.with_name(f"{file.name}.gz")), images=str(tmp_path))
    assert len(present(read_records(named, "val"), skip_missing=False)[0]) == 2


def test_coco_cn_without_lists_is_divided(tmp_path: Path) -> None:
    dataset = written(tmp_path / "data", "coco-cn")
    for split in ("train", "val", "test"):
        (tmp_path / "data" / f"coco-cn_{split}.txt").unlink()
    assert [len(read_records(dataset, split)) for split in ("train", "val")] == [8, 4]


def test_karpathy_as_its_first_archives_name_it(tmp_path: Path) -> None:
    kinds.write_json(tmp_path / "dataset.json", {"images": [{"filename": "1.jpg", "sentences": [{"raw": "A dog."}]}]})
    assert captions_of(read_records(options("karpathy", tmp_path), "all")) == {"1.jpg": ("A dog.",)}


@pytest.mark.parametrize("absent", [{}, {"split": None}])
def test_karpathy_divides_images_without_a_split(tmp_path: Path, absent: dict[str, None]) -> None:
    images = [{"filename": f"{n}.jpg", "sentences": [{"raw": "A dog."}], **absent} for n in range(10)]
    kinds.write_json(tmp_path / "dataset_mine.json", {"images": images})
    assert len(read_records(options("karpathy", tmp_path), "val")) == 2
    assert len(read_records(options("karpathy", tmp_path), "train")) == 8


@pytest.mark.parametrize("column", ["text", "caption", "description"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_imagefolder_metadata(tmp_path: Path, ending: str, column: str) -> None:
    rows = [{"file_name": f"train/{n}.jpg", column: f"A dog {n}.", "width": 64} for n in range(3)]
    file = tmp_path / f"metadata.{ending}"
    if ending == "parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), file)
    elif ending == "csv":
        file.write_text("".join([f"file_name,{column}\n", *(f"{row['file_name']},{row[column]}\n" for row in rows)]))
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = {} if column in ("text", "caption") else {"caption_column": column}
    read = read_records(options("imagefolder", tmp_path, **named), "train")
    assert captions_of(read) == {f"train/{n}.jpg": (f"A dog {n}.",) for n in range(3)}
    if named:
        with pytest.raises(DatasetError, match=r"has no 'file_name' or no 'text' .*name the column of captions"):
            read_records(options("imagefolder", tmp_path), "train")


def test_imagefolder_with_several_captions_an_image(tmp_path: Path) -> None:
    rows = [
        {"file_name": "a.jpg", "captions": ["One.", "Two."]},
        {"file_name": "b.jpg", "caption_0": "A.", "caption_1": "B."},
    ]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert captions_of(read_records(options("imagefolder", tmp_path), "all")) == {
        "a.jpg": ("One.", "Two."),
        "b.jpg": ("A.", "B."),
    }


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_imagefolder_in_other_spellings(tmp_path: Path, ending: str) -> None:
    texts = {
        "csv": "\ufeffimage_file_name,Caption\r\n0.jpg,A dog.\r\n./0.jpg,Again.\r\n,\r\n",
        "jsonl": '{"Image_File_Name": "0.jpg", "Caption": "A dog."}\r\n{"file_name": "./0.jpg", "caption": "Again."}',
    }
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / f"metadata.{ending}").write_bytes(texts[ending].encode())
    read = read_records(options("imagefolder", tmp_path), "all")
    assert captions_of(read) == {"train/0.jpg": ("A dog.", "Again.")}
    with pytest.raises(DatasetError):  # what is called metadata is no table of one's own, unless it has its columns
        read_records(options("table", tmp_path / "train"), "all")


def test_what_captioner_writes_is_read(
    tmp_path: Path, images: list[Path], small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, image in enumerate(images[:3]):
        (tmp_path / f"{place}{image.suffix}").write_bytes(image.read_bytes())
    common = ["caption", str(tmp_path), "--weights", str(small), "--workers=0", "-q"]
    assert main([*common, "--format", "imagefolder", "--output", str(tmp_path / "metadata.jsonl")]) == 0
    assert main([*common, "--format", "sidecar"]) == 0
    read = [captions_of(read_records(options(kind, tmp_path), "all")) for kind in ("imagefolder", "sidecars")]
    assert len(read[0]) == 3
    assert read[0] == read[1]
    assert main([*common, "--format", "imagefolder", "--output", str(tmp_path / "captions.jsonl")]) == 2
    assert "PHOTOS/metadata.jsonl" in capsys.readouterr().err


def test_sidecars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jpg", "b.png", "c.jpg", "d.jpg", "e.jpg"):
        kinds.draw_as(tmp_path, 0, name)
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfA dog.\r\n\r\nOne more.\r\n")
    (tmp_path / "b.caption").write_text("A cat.")
    (tmp_path / "c.txt").touch()
    (tmp_path / "d.txt").write_bytes(b"fine\n\xff\xfe")
    (tmp_path / "e.jpg.txt").write_text("A bird.\n")
    kinds.draw_as(tmp_path, 0, "f.jpg")
    (tmp_path / "f.TXT").write_text("A fish.")
    read = captions_of(read_records(options("sidecars", tmp_path), "all"))
    assert read == {
        "a.jpg": ("A dog.", "One more."),
        "b.png": ("A cat.",),
        "e.jpg": ("A bird.",),
        "f.jpg": ("A fish.",),
    }
    assert f"{tmp_path / 'd.txt'}: line 2 is not UTF-8 text" in capsys.readouterr().err


def test_images_in_tars_are_read_in_place(tmp_path: Path, small: Path) -> None:
    dataset = written(tmp_path / "data", "webdataset")
    (_, records), *_ = read_each(dataset, "val")
    kept, absent = present(records, skip_missing=False)
    assert (len(kept), absent) == (4, [])
    assert [record.image_id for record in kept[:1]] == ["val-00000.tar/000000008.jpg"]
    from captioner.captioner import Captioner  # after the fixture has made what it loads

    model = Captioner.load(small, device="cpu")
    plain = tmp_path / "8.jpg"
    kinds.draw_as(tmp_path, 8, "8.jpg")
    assert (model.preprocess(kept[0].path) == model.preprocess(plain)).all()
    assert not (tmp_path / "data" / "val-00000").exists()


def test_links_in_shards_lead_to_images_and_captions(tmp_path: Path) -> None:
    image = (tmp_path / kinds.draw_as(tmp_path, 0, "x.png")).read_bytes()
    links = {"1.png": "2.png", "2.png": "files/image.png", "2.txt": "./1.txt", "3.png": "3.txt", "3.txt": "3.png"}
    write_tar(tmp_path / "s" / "0.tar", {"./files//image.png": image, "1.txt": b"A dog."}, links)
    read = {record.image_id: record for record in read_records(options("webdataset", tmp_path / "s"), "all")}
    for name in ("0.tar/1.png", "0.tar/2.png"):
        assert read[name].captions == ("A dog.",)
        assert open_image(read[name].path) == open_image(tmp_path / "x.png")
    assert "0.tar/3.png" not in read


def test_damaged_shards_and_samples_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = (tmp_path / kinds.draw_as(tmp_path, 0, "x.png")).read_bytes()
    members = {
        "a.png": image,
        "a.txt": b"A dog.",
        "b.txt": b"No image.",
        "c.png": image,
        "c.json": b"{",
        "d.png": image,
    }
    write_tar(tmp_path / "s" / "0.tar", members)
    write_tar(tmp_path / "s" / "1.tar", {"e.png": image, "e.txt": b"A cat.", "f.png": image, "f.txt": b"Gone."})
    whole = (tmp_path / "s" / "1.tar").read_bytes()
    (tmp_path / "s" / "1.tar").write_bytes(whole[: 512 * 3 + 512 * (len(image) // 512 + 1)])
    (tmp_path / "s" / "2.tar.gz").touch()
    shards = tmp_path / "s"
    assert list(captions_of(read_records(options("webdataset", shards), "all"))) == ["0.tar/a.png", "1.tar/e.png"]
    assert "left out 4 damaged rows" in capsys.readouterr().err
    assert main(["data", str(shards)]) == 0
    said = capsys.readouterr().out
    for fault in ("0.tar/b: has no image", "0.tar/c: its caption", "1.tar: broken, cut off", "2.tar.gz: is compressed"):
        assert f"{shards}/{fault}" in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("0.tar.gz", b"\x1f\x8b"),
        ("0.tgz", b"\x1f\x8b"),
        ("0.tar.bz2", b"BZh9"),
        ("0.tar.xz", b"\xfd7zXZ\0"),
        ("0.tar.zst", b"\x28\xb5\x2f\xfd"),
        ("0.tar", b"\x28\xb5\x2f\xfd"),  # whatever it is called
    ],
)
def test_compressed_shards_alone_are_one_line(
    tmp_path: Path, name: str, content: bytes, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content + bytes(600))
    given = [f"--dataset=webdataset:{tmp_path}", f"--weights={small}"]
    for run in (["data", str(tmp_path)], ["train", given[0], "--output=m.safetensors"], ["evaluate", *given]):
        assert main(run) in (1, 2)
        out, err = capsys.readouterr()
        assert f"{tmp_path / name}: is compressed; decompress it" in out + err


def test_shards_whose_captions_have_another_key(tmp_path: Path) -> None:
    image = (tmp_path / kinds.draw_as(tmp_path, 0, "x.png")).read_bytes()
    write_tar(tmp_path / "0.tar", {"a.png": image, "a.json": b'{"blip": "A dog."}'})
    with pytest.raises(DatasetError, match=r"its tars hold no captions .* name another key .*`caption_column`"):
        read_records(options("webdataset", tmp_path), "all")


def test_joined_tars_are_read_to_their_end(tmp_path: Path) -> None:
    kinds.webdataset(tmp_path)
    first, second = sorted(tmp_path.glob("*.tar"))
    joined = tmp_path / "joined"
    joined.mkdir()
    (joined / "all.tar").write_bytes(first.read_bytes() + second.read_bytes())
    assert len(read_records(options("webdataset", joined), "all")) == 12


def test_caption_column_of_a_shard(tmp_path: Path) -> None:
    image = (tmp_path / kinds.draw_as(tmp_path, 0, "x.png")).read_bytes()
    write_tar(tmp_path / "0.tar", {"a.png": image, "a.txt": b"alt", "a.json": b'{"blip": "A dog."}'})
    read = read_records(options("webdataset", tmp_path, caption_column="blip"), "all")
    assert captions_of(read) == {"0.tar/a.png": ("A dog.",)}


def test_where_no_image_is_there_the_folder_of_images_is_to_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "captions.csv").write_text("image,caption\na.jpg,A.\nb.jpg,B.\n")
    (tmp_path / "pictures").mkdir()
    kinds.draw_as(tmp_path / "pictures", 0, "a.jpg")
    assert main(["data", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "absent            2 images" in said
    assert f"--dataset table:{tmp_path / 'text'} --images FOLDER\n" in said


def test_a_folder_of_nothing_and_a_folder_of_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.tar", "metadata.jsonl", "metadata.parquet", "captions.csv", "a.txt"):
        os.mkfifo(tmp_path / name)  # opening one would wait for its writer
    assert main(["data", str(tmp_path)]) == 2
    assert "holds no captioned images in a known form" in capsys.readouterr().err
    written(tmp_path / "inner", "table")
    assert main(["data", str(tmp_path)]) == 0
    assert f"table in {tmp_path / 'inner'}" in capsys.readouterr().out
    (tmp_path / "inner" / "captions.csv").write_text("image,caption\na.jpg\n")
    assert main(["data", str(tmp_path / "inner")]) == 1
    assert "line 2 has 1 fields" in capsys.readouterr().out


def test_results_for_the_coco_server(
    tmp_path: Path, images: list[Path], small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test2014").mkdir()
    listed = []
    for number, image in enumerate(images[:2], start=14):
        name = f"COCO_test2014_{number:012d}{image.suffix}"
        (tmp_path / "test2014" / name).write_bytes(image.read_bytes())
        listed.append({"id": number, "file_name": name})
    info = tmp_path / "annotations" / "image_info_test2014.json"
    kinds.write_json(info, {"images": listed, "categories": []})
    run = ["caption", "--images-from", str(info), "--weights", str(small), "--workers=0", "-q"]
    assert main(run) == 0
    results = json.loads((tmp_path / "captions_test2014_small_results.json").read_text())
    assert [(row["image_id"], sorted(row)) for row in results] == [(n, ["caption", "image_id"]) for n in (14, 15)]
    assert main(run) == 0  # nothing is left to do
    assert main([*run[:3], str(tmp_path / "nowhere"), *run[3:]]) == 2
    assert "there is no such folder of images" in capsys.readouterr().err
    assert main(["data", str(tmp_path)]) == 2
    assert f"captioner caption --images-from {info}" in capsys.readouterr().err
