from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from captioner.captioner import Captioner
from captioner.decoding.options import DecodingOptions
from captioner.errors import BusyError, CaptionerError, ImageError, OptionError, UnknownWordsError
from captioner.saving import save_checkpoint
from captioner.web import service as module
from captioner.web.service import MOST_WORDS, Service
from tests.small_model import small_checkpoint
from tests.web.hostile import good_png
from tests.web.waiting import Narrow


def test_it_says_what_the_captioner_says(service: Service, captioner: Captioner, images: list[Path]) -> None:
    # One has an EXIF orientation, one is grey.
    for options in (DecodingOptions(beam_size=3), DecodingOptions(temperature=0.9, num_captions=3)):
        for image, expected in zip(images, captioner.caption(images, options), strict=True):
            found = service.caption(service.prepare(image), options)
            assert [caption.text for caption in found] == [caption.text for caption in expected]
            assert found[0].log_prob == pytest.approx(expected[0].log_prob, abs=1e-4)


def test_the_score_of_its_own_caption_is_that_of_decoding(service: Service, images: list[Path]) -> None:
    prepared = service.prepare(images[0])
    best = service.caption(prepared)[0]
    score = service.score(prepared, best.text, runners_up=3)
    assert score.words == best.words
    assert score.log_prob == pytest.approx(best.log_prob, abs=1e-4)
    assert [len(place) for place in score.runners_up] == [3] * (len(best.words) + 1)


def test_bytes_and_file_are_one_image(service: Service, images: list[Path]) -> None:
    assert service.prepare(images[1].read_bytes()) is service.prepare(images[1])


def test_images_are_remembered_within_a_bound(
    service: Service, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_PREPARED", 2)
    service._prepared.clear()
    first = service.prepare(images[0])
    service.prepare(images[1])
    assert service.prepare(images[0]) is first  # used again, so images[1] goes first
    service.prepare(images[2])
    assert service.prepare(images[0]) is first
    assert len(service._prepared) == 2
    service.prepare(images[3], remember=False)
    assert service.prepare(images[0]) is first


@pytest.mark.parametrize("text", ["", "  ", "!?", "..."])
def test_a_sentence_without_words_is_refused(service: Service, images: list[Path], text: str) -> None:
    with pytest.raises(OptionError, match="no words"):
        service.score(service.prepare(images[0]), text)


@pytest.mark.parametrize("text", ["dog " * 10_000, "x" * 1_000_000, "a\n" * 10_000])
def test_a_long_sentence_is_refused(service: Service, images: list[Path], text: str) -> None:
    with pytest.raises(OptionError, match=f"at most {MOST_WORDS} words"):
        service.score(service.prepare(images[0]), text)


def test_unknown_words_are_named(service: Service, images: list[Path]) -> None:
    with pytest.raises(UnknownWordsError, match="skateboard"):
        service.score(service.prepare(images[0]), "a dog on a skateboard")


def test_hostile_files_are_named_by_the_visitors_name(service: Service, hostile: tuple[Path, str]) -> None:
    path, message = hostile
    with pytest.raises(ImageError, match=message) as caught:
        service.prepare(path, name="holiday.jpg")
    assert str(caught.value).startswith("holiday.jpg: ")
    assert "secret-folder" not in str(caught.value)


def test_a_file_that_has_gone_is_told_without_its_path(service: Service, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="upload it again") as caught:
        service.prepare(tmp_path / "gone.jpg")
    assert str(tmp_path) not in str(caught.value)


def test_other_weights_are_found_by_name(service: Service, images: list[Path]) -> None:
    assert service.models.default == "small"
    assert service.models.weights[0] == "small"
    assert "captioner" in service.models.weights
    shipped = Captioner.load(device="cpu")
    prepared = service.prepare(images[0], weights="captioner")
    assert service.caption(prepared)[0].text == shipped.caption([images[0]])[0][0].text
    about = service.models.about("captioner")
    assert about.digest == shipped.digest
    assert about.words == len(shipped.vocabulary)
    assert "captioner.safetensors" in about.card
    assert service.models.about().card == ""


@pytest.mark.parametrize("name", ["nothing", "../small", "/etc/passwd", "captioner.safetensors"])
def test_weights_are_no_paths(service: Service, images: list[Path], name: str) -> None:
    with pytest.raises(OptionError, match="there are no weights"):
        service.prepare(images[0], weights=name)


def test_few_models_are_in_memory(checkpoint_file: Path, tmp_path: Path) -> None:
    service = Service(checkpoint_file, device="cpu")
    service.models.start()
    service.models.load()
    for name in ("second", "third"):
        service.models._files[name] = tmp_path / f"{name}.safetensors"
        save_checkpoint(service.models._files[name], small_checkpoint(training={"name": name}))
        assert service.models.about(name).training == {"name": name}
    assert set(service.models._models) == {"small", "third"}
    service.models._files["broken"] = tmp_path / "broken.safetensors"
    service.models._files["broken"].write_bytes(b"nonsense")
    with pytest.raises(CaptionerError, match="'broken' cannot be loaded") as caught:
        service.options("broken")
    assert str(tmp_path) not in str(caught.value)
    assert service.options() == small_checkpoint().decoding


def test_a_visitor_waits_for_the_model(checkpoint_file: Path, images: list[Path]) -> None:
    service = Service(checkpoint_file, device="cpu")
    assert service.models.status.state == "loading"
    assert service.models.weights == []
    threading.Timer(0.2, service.models.start).start()
    assert service.caption(service.prepare(images[0]))[0].text
    assert service.models.status.state == "ready"
    assert service.models.status.seconds > 0


def test_weights_that_cannot_be_loaded_are_told(
    tmp_path: Path, images: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(tmp_path / "absent.safetensors")
    service.models.start()
    with pytest.raises(CaptionerError, match="cannot be loaded") as caught:
        service.models.load()
    assert "absent.safetensors: no such checkpoint" in str(caught.value.__cause__)
    assert service.models.status.state == "failed"
    with pytest.raises(CaptionerError) as caught:
        service.prepare(images[0])
    assert str(tmp_path) not in str(caught.value) + service.models.status.message
    assert str(tmp_path) in caplog.text  # for the operator


def test_many_threads_get_their_own_answers(service: Service, images: list[Path]) -> None:
    images = images[:4]
    expected = {image: service.caption(service.prepare(image))[0].text for image in images}
    answers: list[tuple[Path, str]] = []

    def ask(image: Path) -> None:
        prepared = service.prepare(image, remember=False)
        answers.append((image, service.caption(prepared)[0].text))

    threads = [threading.Thread(target=ask, args=(image,)) for image in images * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(list(expected.items()) * 3)


def test_several_sentences_are_scored_at_once(service: Service, images: list[Path]) -> None:
    prepared = service.prepare(images[0])
    texts = ["a dog", "a dog runs in the grass"]
    assert service.scores(prepared, texts) == [service.score(prepared, text) for text in texts]


def test_an_image_is_encoded_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = service.prepare(good_png("#123456"))
    assert prepared.regions is None
    service.caption(prepared)
    regions = prepared.regions
    monkeypatch.setattr(Captioner, "encode", lambda *_: pytest.fail("it is encoded again"))
    service.caption(prepared, DecodingOptions(beam_size=2))
    service.score(prepared, "a dog")
    assert prepared.regions is regions


def test_one_too_many_is_refused_before_it_is_read(narrow: Narrow, images: list[Path]) -> None:
    with ThreadPoolExecutor(2) as pool:
        begun = [pool.submit(narrow.service.caption, narrow.service.prepare(images[0]))]
        narrow.wait_until_busy(waiting=0)
        begun.append(pool.submit(narrow.service.caption, narrow.service.prepare(images[1])))
        narrow.wait_until_busy(waiting=1)
        for refused in (narrow.service.check_room, lambda: narrow.service.prepare(images[2])):
            with pytest.raises(BusyError, match="busy"):
                refused()
        narrow.go_on()
        assert all(captions.result(60) for captions in begun)


def test_memory_is_given_back_when_there_is_nothing_to_do(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REST", 0.01)
    rested = threading.Event()
    monkeypatch.setattr(service.models.load().model, "rest", rested.set)
    threading.Thread(target=service.keep_small, daemon=True).start()
    service._used.clear()
    rested.clear()
    service.prepare(good_png("#654321"))
    assert rested.wait(60)


def test_importing_it_needs_neither_torch_nor_gradio() -> None:
    code = "import sys, captioner.web.service; print({'torch', 'gradio'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
