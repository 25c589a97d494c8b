from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from captioner.errors import EvaluationError, OptionError
from captioner.evaluation.evaluate import Evaluation, Provenance, cross_check, evaluate
from captioner.evaluation.options import EvaluationOptions
from captioner.evaluation.report import evaluation_table
from captioner.metrics.evaluate import METRICS, References, score_captions
from tests.evaluation.small import CAPTIONS, REFERENCES

PROVENANCE = Provenance("coco val", 6)


def test_json_has_the_figures_on_a_0_to_1_scale_and_says_so(evaluation: Evaluation) -> None:
    found = json.loads(json.dumps(evaluation.to_dict()))
    assert found["scale"] == "0-1"
    for name in METRICS:
        assert found[name] == evaluation.scores.figures[name]
        low, high = found["intervals"][name]
        assert low <= high
    assert all(0 <= found[name] <= 1 for name in METRICS[:5])
    assert (found["images"], found["references"], found["images_available"]) == (6, 18, 8)
    assert found["skipped"] == {"absent": 2, "unreadable": 0}
    assert found["not_computed"]["METEOR"] == "switched off"
    assert set(found["not_computed"]) == {"METEOR", "SPICE", "CLIPScore"}
    assert found["diversity"]["unseen"] == pytest.approx(4 / 6)
    assert found["signature"] == evaluation.signature


def test_without_a_bootstrap_there_are_no_intervals() -> None:
    options = EvaluationOptions(bootstrap=0, meteor=False)
    found = evaluate(CAPTIONS, References(REFERENCES), PROVENANCE, options)
    assert found.intervals == {}
    assert "|bootstrap:none|" in found.signature


def test_the_figures_are_those_of_the_metrics() -> None:
    found = evaluate(CAPTIONS, References(REFERENCES), PROVENANCE, EvaluationOptions(meteor=False))
    assert found.scores.figures == score_captions(CAPTIONS, REFERENCES).figures


def test_domains_are_scored_as_data_sets_of_their_own() -> None:
    ids = list(CAPTIONS)
    domains = {"in-domain": ids[:4], "out-domain": [*ids[4:], "absent"]}
    found = evaluate(CAPTIONS, References(REFERENCES), PROVENANCE, EvaluationOptions(meteor=False), domains=domains)
    for name, part in {"in-domain": ids[:4], "out-domain": ids[4:]}.items():
        alone = score_captions({i: CAPTIONS[i] for i in part}, {i: REFERENCES[i] for i in part})
        assert found.to_dict()["domains"][name] == {"images": len(part), **alone.figures}  # type: ignore[index]
        assert f"\n{name:<14}{len(part):>8}" in evaluation_table(found)


def test_meteor_is_named_with_the_reason_where_it_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = evaluate(CAPTIONS, References(REFERENCES), PROVENANCE, EvaluationOptions())
    assert found.meteor is None
    for metric in ("METEOR", "SPICE"):
        assert found.not_computed[metric] == f"{metric} needs Java, and there is no program 'java'"
    assert "METEOR" not in found.to_dict()
    assert "METEOR" not in found.signature


def test_meteor_is_in_result_and_signature_where_it_can_be_had() -> None:
    if shutil.which("java") is None:
        pytest.skip("METEOR needs Java")
    pytest.importorskip("pycocoevalcap.meteor.meteor", reason="pycocoevalcap is not installed (extra: dev)")
    found = evaluate(CAPTIONS, References(REFERENCES), PROVENANCE, EvaluationOptions())
    assert found.meteor is not None
    assert 0 < found.meteor < 1
    assert found.to_dict()["METEOR"] == found.meteor
    assert "+METEOR-1.5|" in found.signature


def test_captions_of_other_images_are_an_error() -> None:
    with pytest.raises(EvaluationError, match="1 captions are of images without references: 7"):
        evaluate({**CAPTIONS, 7: "a"}, References(REFERENCES), PROVENANCE, EvaluationOptions())


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"bootstrap": -1}])
def test_impossible_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"`{next(iter(wrong))}`"):
        EvaluationOptions(**wrong)


def judged(captions: dict[int, str]) -> tuple[Evaluation, dict[str, float | int | None]]:
    human = {name: REFERENCES[name] for name in captions}
    references = References(human)
    found = evaluate(captions, references, PROVENANCE, EvaluationOptions(bootstrap=0, meteor=False))
    return found, cross_check(found, references)


def test_bleu_is_checked_against_nltk_on_captions_of_four_words_or_more() -> None:
    whole = {name: texts[0] for name, texts in REFERENCES.items()}
    names = list(whole)
    whole[names[0]] = whole[names[0]].rsplit(" ", 2)[0] + " unseen words here"
    found, check = judged(whole)
    assert check["images"] == len(whole)
    assert 0 < check["nltk_bleu_4"] < 1
    assert check["nltk_bleu_4"] == pytest.approx(found.scores.figures["BLEU-4"], abs=1e-9)
    assert abs(check["difference"]) < 1e-9
    shortened, rest = judged({**whole, names[1]: "a dog"})
    assert rest["images"] == len(whole) - 1
    assert abs(rest["difference"]) < 1e-9
    assert abs(rest["nltk_bleu_4"] - shortened.scores.figures["BLEU-4"]) > 1e-9


def test_the_cross_check_of_captions_that_are_short_or_match_nothing(
    recwarn: pytest.WarningsRecorder,
) -> None:
    _, check = judged(dict.fromkeys(REFERENCES, "a dog"))
    assert check == {"nltk_bleu_4": None, "difference": None, "images": 0}
    _, check = judged(dict.fromkeys(REFERENCES, "none of these words match anything"))
    assert check["images"] == len(REFERENCES)
    assert check["nltk_bleu_4"] < 1e-12
    assert 0 <= check["difference"] < 2e-4
    assert not recwarn.list
