"""Question answering: where answers are in windows, the best span over all of them, and when there is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clozeline as cl
from clozeline.data.packing import Samples
from clozeline.data.readers import Columns
from clozeline.data.squad import Question, questions
from clozeline.errors import InputError
from clozeline.evaluate import answers
from clozeline.tasks.question_answering import BEST, QuestionAnswering
from clozeline.tokenizer import Tokenizer
from helpers import PLAIN

LONG = " ".join(PLAIN[at * 7 % 50] for at in range(200))


@pytest.fixture(scope="module")
def words_only(tiny: Path) -> Tokenizer:
    """Each word of its vocabulary is one token; at most 64 at once."""
    return Tokenizer.load(tiny, 64)


@pytest.fixture(scope="module")
def uncased(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("uncased")
    (folder / "vocab.txt").symlink_to(data / "tokenizers" / "bert-base-uncased" / "vocab.txt")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return Tokenizer.load(folder, 512)


def asked(passage: str, *found: tuple[str, int], question: str = "w1 w2", name: str = "q") -> Question:
    return Question(name, question, passage, found, "", name)


def random_logits(samples: Samples, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(samples.ids), 2)).astype(np.float32)


def perfect(samples: Samples) -> np.ndarray:
    """Logits that say what was learned: in a window without the answer, its first token."""
    assert samples.targets is not None
    logits = np.zeros((len(samples.ids), 2), np.float32)
    for at, places in enumerate(samples.targets):
        for side in (0, 1):
            logits[samples.bounds[at] + places[side], side] = 20
    return logits


def learned(samples: Samples) -> list[list[str]]:
    """The text between the two targets of every window; "-" where they are at the first token."""
    assert samples.targets is not None
    assert samples.offsets is not None
    found = []
    for at, one in enumerate(samples.examples):
        texts = []
        for window in range(samples.first[at], samples.first[at + 1]):
            first, last = samples.bounds[window] + samples.targets[window]
            start, end = samples.offsets[first, 0], samples.offsets[last, 1]
            none = not samples.targets[window].any()
            texts.append("-" if none else one.passage[start:end])
        found.append(texts)
    return found


# -- targets


def test_targets_are_the_tokens_of_the_first_answer(words_only: Tokenizer) -> None:
    task = QuestionAnswering()
    samples = task.samples(words_only, [asked("w5 w6 w7 w8", ("w6 w7", 3), ("w8", 9)), asked("w5")])
    assert samples.targets is not None
    assert samples.targets.tolist() == [[5, 6], [0, 0]]  # [CLS] w1 w2 [SEP] w5 w6 w7 w8 [SEP]
    assert samples.targets_of == "sequence"
    unlabelled = task.samples(words_only, [asked("w5", ("w5", 0))], targets=False)
    assert unlabelled.targets is None


def test_an_answer_that_cuts_a_token_is_learned_as_the_whole_token(uncased: Tokenizer) -> None:
    passage = "It cost $3.50 in London, said the Frenchmen."
    answers_of = [(text, passage.index(text)) for text in ("ondo", "50", "in Lon", "renchme")]
    samples = QuestionAnswering().samples(uncased, [asked(passage, one) for one in answers_of])
    assert learned(samples) == [["London"], ["50"], ["in London"], ["Frenchmen"]]


def test_spaces_and_signs_that_the_tokenizer_drops_do_not_lose_an_answer(uncased: Tokenizer) -> None:
    for passage, text, start in (
        ("  Ada wrote it. ", "  Ada", 0),
        ("\u200bAda wrote it", "\u200bAda", 0),
        ("It was Ada\u200b", "Ada\u200b", 7),
        ("It was Ada ", " Ada ", 6),
        ("It was\u00ad Ada", "was\u00ad", 3),
    ):
        assert passage[start : start + len(text)] == text
        samples = QuestionAnswering().samples(uncased, [asked(passage, (text, start))])
        assert learned(samples) == [[text.strip(" \u200b\u00ad")]]


@pytest.mark.parametrize("max_length", [16, 25, 64])
def test_each_window_that_holds_the_whole_answer_points_at_it(max_length: int, words_only: Tokenizer) -> None:
    task = QuestionAnswering(max_length=max_length)
    words = LONG.split()
    examples, sizes = [], []
    for first in range(0, 197, 3):
        size = 1 + first % 4
        text = " ".join(words[first : first + size])
        examples.append(asked(LONG, (text, len(" ".join(words[:first])) + (first > 0)), name=str(first)))
        sizes.append((first, size))
    samples = task.samples(words_only, examples)
    assert samples.targets is not None
    assert samples.offsets is not None
    room = max_length - 5
    step = room - room // 4
    starts = [*range(0, 200 - room, step), 200 - room]
    for at, (first, size) in enumerate(sizes):
        held = [start <= first and first + size <= start + room for start in starts]
        texts = learned(samples)[at] if at < 3 else None
        targets = samples.targets[samples.first[at] : samples.first[at + 1]]
        assert [bool(one.any()) for one in targets] == held
        for start, (one, last) in zip(starts, targets, strict=True):
            assert one == last == 0 or (one, last) == (4 + first - start, 4 + first + size - 1 - start)
        assert texts is None or set(texts) == {"-", examples[at].answers[0][0]}


def test_targets_are_those_that_the_characters_of_squad_say(data: Path, uncased: Tokenizer) -> None:
    """Every answer of some hundreds stands in a window, and its tokens say it with a part of a word more at most."""
    examples = [*questions(data / "squad" / "dev-v2.0.json")][::60]
    samples = QuestionAnswering(max_length=128).samples(uncased, examples)
    cut = 0
    for example, texts in zip(examples, learned(samples), strict=True):
        wanted = {example.answers[0][0]} if example.answers else set()
        found = {*texts} - {"-"}
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            cut += one != other
            assert other in one
            assert len(one) <= len(other) + 12
    assert len(examples) > 150
    assert cut < 5
    golds, said = QuestionAnswering(threshold=0.0, longest_answer=60)._both(perfect(samples), samples)
    whole = {example.name: texts for example, texts in zip(examples, learned(samples), strict=True)}
    for name, text in said.items():
        assert text == next((one for one in whole[name] if one != "-"), "")
    assert answers.measures(golds, said)["exact"] > 0.97


@pytest.mark.parametrize("long", ["truncate", "head_tail"])
def test_what_is_cut_is_counted_and_no_half_answer_is_learned(long: Any, words_only: Tokenizer) -> None:
    words = [f"w{at}" for at in range(30)]
    passage = " ".join(words)
    task = QuestionAnswering(long=long, max_length=21)  # 16 words of the passage
    seen = {*range(16)} if long == "truncate" else {*range(4), *range(18, 30)}
    for first in range(30):
        for size in (1, 2, 5, 20):
            chosen = words[first : first + size]
            start = passage.index(words[first])
            samples = task.samples(words_only, [asked(passage, (" ".join(chosen), start))])
            assert samples.cut.tolist() == [14]
            whole = {*range(first, first + len(chosen))} <= seen
            assert learned(samples) == [[" ".join(chosen)] if whole else ["-"]]
    # nor is one predicted over what was not seen
    samples = task.samples(words_only, [asked(passage)])
    logits = np.zeros((21, 2), np.float32)
    logits[7, 0] = logits[8, 1] = 9  # the last token before the gap, and the first after it
    (found,) = task.decode(logits, samples)
    assert found.truncated == 14
    shown = found.best[0].text.split()
    assert {words.index(word) for word in shown} <= seen
    assert (len(shown) == 2) == (long == "truncate")


def test_a_question_longer_than_the_window_is_refused(words_only: Tokenizer) -> None:
    with pytest.raises(InputError, match="leaves no room for windows"):
        QuestionAnswering(max_length=16).samples(words_only, [asked(LONG, question=LONG[:100])])
    with pytest.raises(InputError, match="202 tokens, but there is room for 61"):
        QuestionAnswering(long="error").samples(words_only, [asked(LONG)])


def test_each_window_has_the_whole_question(words_only: Tokenizer) -> None:
    """Also where it is longer than the passage, which still is what moves."""
    question = " ".join(PLAIN[:9])
    samples = QuestionAnswering(max_length=16).samples(words_only, [asked("w5 w6 w7 w8 w9", question=question)])
    assert samples.source is not None
    assert len(samples.bounds) - 1 == 2
    for first, after in pairwise(samples.bounds):
        asking = samples.ids[first:after][samples.source[first:after] == 0]
        assert words_only.decode(asking) == question


def test_messages_about_long_texts_name_the_question(words_only: Tokenizer) -> None:
    given = [asked("w1"), asked("w5 w6 w7", question=LONG, name="dev.json question 7")]
    with pytest.raises(InputError, match=r"^dev.json question 7 and its pair .* leaves no room for windows"):
        QuestionAnswering(max_length=16).samples(words_only, given)
    with pytest.raises(
        InputError, match=r"^dev.json question 7 and its pair have 203 tokens, but there is room for 61"
    ):
        QuestionAnswering(long="error").samples(words_only, given)


def test_a_passage_of_validation_that_stands_in_training_is_said() -> None:
    train = [asked(LONG, question="w1", name="train 1"), asked(LONG, question="w2", name="train 2")]
    validation = [
        asked(LONG + " w3", question="w4", name="dev 1"),
        asked(LONG + " w3", question="w5", name="dev 2"),
        asked("w7 w8", name="dev 3"),
        asked(LONG.upper(), name="dev 4"),
    ]
    (said,) = QuestionAnswering().notes(train, validation)
    assert "passages that stand in training too: 2 of 3 (66.67%), 1 of them nearly the same: dev 4 and train 1" in said
    assert QuestionAnswering().notes(train, validation[2:3]) == []
    assert QuestionAnswering().notes(train, []) == []


def test_of_nothing_comes_no_answer(words_only: Tokenizer) -> None:
    for task, score in ((QuestionAnswering(), 0.0), (QuestionAnswering(threshold=0.0), 1.0)):
        samples = task.samples(words_only, [asked("")])
        (found,) = task.decode(random_logits(samples), samples)
        assert (found.text, found.score, found.best) == ("", score, ())


# -- spans


def brute_force(
    samples: Samples, logits: np.ndarray, at: int, longest: int
) -> tuple[dict[tuple[int, int], float], float]:
    """The score of every span of an example by its characters, the best over windows; and the least score of none."""
    assert samples.offsets is not None
    assert samples.source is not None
    scores: dict[tuple[int, int], float] = {}
    none = []
    for window in range(samples.first[at], samples.first[at + 1]):
        begin, after = int(samples.bounds[window]), int(samples.bounds[window + 1])
        none.append(float(logits[begin, 0] + logits[begin, 1]))
        for first in range(begin, after):
            for last in range(first, min(first + longest, after)):
                if samples.source[first] == samples.source[last] == 1:
                    span = int(samples.offsets[first, 0]), int(samples.offsets[last, 1])
                    scores[span] = max(scores.get(span, -np.inf), float(logits[first, 0] + logits[last, 1]))
    return scores, min(none)


@pytest.mark.parametrize("longest", [1, 4, 30, 1000])
@pytest.mark.parametrize("max_length", [12, 40, 64])
def test_the_best_spans_are_the_best_of_all(longest: int, max_length: int, words_only: Tokenizer) -> None:
    task = QuestionAnswering(max_length=max_length, longest_answer=longest, threshold=0.0)
    examples = [asked(LONG[: 3 * size + 7]) for size in (0, 3, 20, 60)]
    samples = task.samples(words_only, examples)
    for seed in range(3):
        logits = random_logits(samples, seed)
        logits[:, 0] += np.linspace(0, 3, len(logits))  # good starts stand behind good ends, as no heuristic likes it
        logits[:, 1] -= np.linspace(0, 3, len(logits))
        for at, found in enumerate(task.decode(logits, samples)):
            every, none = brute_force(samples, logits, at, longest)
            order = sorted(every, key=lambda span: (-every[span], span))[:BEST]
            assert [(one.start, one.end) for one in found.best] == order
            assert all(one.text == examples[at].passage[one.start : one.end] for one in found.best)
            scores = np.asarray([*(every[span] for span in order), none], np.float64)
            shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            assert [one.score for one in found.best] == pytest.approx(shares[:-1].tolist(), rel=1e-5)
            assert found.no_answer == pytest.approx(shares[-1], rel=1e-5)
            if none > every[order[0]]:
                assert (found.text, found.start, found.end, found.score) == ("", 0, 0, found.no_answer)
            else:
                assert (found.start, found.end, found.text) == (*order[0], found.best[0].text)


def test_a_model_that_knows_no_questions_without_answer_always_answers(words_only: Tokenizer) -> None:
    task = QuestionAnswering()
    samples = task.samples(words_only, [asked("w5 w6"), asked("")])
    logits = random_logits(samples)
    logits[samples.bounds[:-1]] = 50  # as sure as can be that there is none
    first, empty = task.decode(logits, samples)
    assert first.no_answer is None
    assert first.text in ("w5", "w6", "w5 w6")
    assert sum(one.score for one in first.best) == pytest.approx(1)
    assert (empty.text, empty.start, empty.end, empty.best, empty.no_answer) == ("", 0, 0, (), None)
    (said,) = QuestionAnswering(threshold=0.0).decode(
        logits[: samples.bounds[1]], task.samples(words_only, [asked("w5 w6")])
    )
    assert said.text == ""
    assert said.score == said.no_answer
    assert said.score > 0.99


def test_an_empty_passage_has_no_answer(words_only: Tokenizer) -> None:
    task = QuestionAnswering(threshold=0.0)
    for passage in ("", "  ", "\u200b"):
        samples = task.samples(words_only, [asked(passage)])
        assert samples.targets is not None
        assert samples.targets.tolist() == [[0, 0]]
        (found,) = task.decode(random_logits(samples), samples)
        assert (found.text, found.score, found.no_answer, found.best) == ("", 1, 1, ())
        assert np.isfinite(task.check(random_logits(samples), samples).loss)
        assert task.tuned(random_logits(samples), samples).threshold == 1e9


def test_nothing_is_lost_of_a_passage_of_five_thousand_tokens(words_only: Tokenizer) -> None:
    words = [PLAIN[at * 7 % 50] for at in range(5000)]
    for at in (0, 1, 2500, 3333, 4998, 4999):
        some = [*words[:at], "good", *words[at + 1 :]]
        passage = " ".join(some)
        start = passage.index("good")
        task = QuestionAnswering(threshold=0.0)
        samples = task.samples(words_only, [asked(passage, ("good", start))])
        (found,) = task.decode(perfect(samples), samples)
        assert (found.text, found.start, found.tokens, found.truncated) == ("good", start, 5002, 0)


# -- the threshold


def f1_at(task: QuestionAnswering, threshold: float, logits: np.ndarray, samples: Samples) -> float:
    moved = QuestionAnswering(threshold=threshold, longest_answer=task.longest_answer, max_length=task.max_length)
    return answers.measures(*moved._both(logits, samples))["f1"]


@pytest.mark.parametrize("seed", range(6))
def test_the_fitted_threshold_is_the_best_of_all(seed: int, words_only: Tokenizer) -> None:
    random = np.random.default_rng(seed)
    words = LONG.split()
    examples = []
    for at in range(25):
        first, size = int(random.integers(0, 40)), int(random.integers(1, 4))
        start = len(" ".join(words[:first])) + (first > 0)
        found = [(" ".join(words[first : first + size]), start)] if random.random() < 0.6 else []
        examples.append(asked(" ".join(words[:50]) if at else "", *(found if at else []), name=str(at)))
    task = QuestionAnswering(max_length=30, threshold=0.0)
    samples = task.samples(words_only, examples)
    logits = random_logits(samples, seed) + perfect(samples) * float(random.choice([0, 0.1, 0.2]))
    if seed == 5:
        logits = np.round(logits)  # equal gaps
    gaps = []
    for at in range(len(examples)):
        every, none = brute_force(samples, logits, at, 30)
        gaps += [none - max(every.values())] if every else []
    edges = np.unique(gaps)
    tries = [edges[0] - 1, edges[-1] + 1, *((edges[1:] + edges[:-1]) / 2), *edges]
    best = max(f1_at(task, float(one), logits, samples) for one in tries)
    tuned = task.tuned(logits, samples)
    assert tuned.threshold is not None
    assert f1_at(task, tuned.threshold, logits, samples) == pytest.approx(best, abs=1e-12)
    assert task.check(logits, samples).scores["f1"] == pytest.approx(best, abs=1e-12)
    assert tuned.report(logits, samples).f1.value == pytest.approx(best, abs=1e-12)
    assert QuestionAnswering().tuned(logits, samples).threshold is None


def test_questions_that_are_equally_sure_are_answered_together_or_not_at_all(words_only: Tokenizer) -> None:
    """After the first of them the sum would be best, but no threshold stands between equals."""
    task = QuestionAnswering(threshold=0.0)
    samples = task.samples(words_only, [asked("w5", ("w5", 0), name="a"), asked("w5", name="b"), asked("w5", name="c")])
    logits = np.zeros((len(samples.ids), 2), np.float32)
    tuned = task.tuned(logits, samples)
    assert [one.text for one in tuned.decode(logits, samples)] == ["", "", ""]
    assert task.check(logits, samples).scores["f1"] == pytest.approx(2 / 3)


def test_a_threshold_is_wanted_where_some_question_has_no_answer() -> None:
    cols = Columns()
    both: Sequence[Question] = [asked("w5", ("w5", 0)), asked("w5")]
    settled = QuestionAnswering().settled(both, "train.json", cols)
    assert settled.threshold == 0
    assert QuestionAnswering().settled(both[:1], "train.json", cols).threshold is None
    assert QuestionAnswering(threshold=2.0).settled(both, "train.json", cols).threshold == 2


def test_config_json_keeps_the_settings() -> None:
    for task in (QuestionAnswering(), QuestionAnswering("truncate", 128, 7, -1.5)):
        assert QuestionAnswering.from_raw(json.loads(json.dumps(task.raw()))) == task
    with pytest.raises(InputError, match="longest_answer is 0"):
        QuestionAnswering(longest_answer=0)


def test_questions_are_counted_by_whether_they_have_an_answer(words_only: Tokenizer) -> None:
    samples = QuestionAnswering().samples(words_only, [asked("w5", ("w5", 0)), asked("w5"), asked("w6")])
    assert QuestionAnswering().counts(samples) == {"with an answer": 1, "without": 2}


# -- a model


@pytest.fixture(scope="module")
def finder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> cl.Model:
    """A model that has learned that "good" is the answer to everything, and that there is none without it."""
    folder = tmp_path_factory.mktemp("finder")
    random = np.random.default_rng(0)
    for name, count in (("train", 500), ("dev", 60)):
        rows = []
        for at in range(count):
            words = random.choice(PLAIN, random.integers(3, 50)).tolist()
            if at % 3:
                words[random.integers(len(words))] = "good"
            text = " ".join(words)
            answer = (
                {"text": ["good"], "answer_start": [text.index("good")]} if at % 3 else {"text": [], "answer_start": []}
            )
            rows.append({"id": at, "question": "w1 w2", "context": text, "answers": answer})
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = cl.load(tiny, QuestionAnswering())
    model.fit(folder / "train.jsonl", folder / "dev.jsonl", out=folder / "run", epochs=5, learning_rate=4e-3,
              batch_size=16, precision="fp32", quiet=True)  # fmt: skip
    assert model.fitted is not None
    assert model.fitted.best is not None
    assert model.fitted.best.scores["f1"] > 0.95
    return cl.load(folder / "run" / "model")


@pytest.mark.parametrize("at", [0, 2500, 4999])
def test_a_trained_model_finds_the_answer_anywhere_in_a_long_passage(at: int, finder: cl.Model) -> None:
    words = [PLAIN[number * 7 % 50] for number in range(5000)]
    words[at] = "good"
    passage = " ".join(words)
    (found,) = finder.predict("w1 w2", passage)
    assert (found.text, found.start, found.end) == ("good", passage.index("good"), passage.index("good") + 4)
    assert (found.tokens, found.truncated) == (5002, 0)
    assert found.score > 0.5 > found.no_answer


def test_a_trained_model_says_that_there_is_none(finder: cl.Model) -> None:
    task = finder.task
    assert isinstance(task, QuestionAnswering)
    assert task.threshold is not None
    found = finder.predict(["w1 w2", "w1 w2"], [" ".join(PLAIN), ""])
    assert [one.text for one in found] == ["", ""]
    assert all(one.no_answer > 0.5 for one in found)


@pytest.mark.parametrize(
    ("texts", "pairs", "message"),
    [
        ("w1", None, r"texts\[0\]: the passage is None; give each question a passage"),
        (["w1", "w2"], None, r"texts\[0\]: the passage is None"),
        ("w1", ["a", "b"], "1 texts but 2 pairs|the passage is"),
        (["w1", 5], ["w2", "w3"], r"texts\[1\]: the question is 5"),
        (["w1", "w1"], ["w2", 7], r"texts\[1\]: the passage is 7"),
        (["w1", "w2"], ["w3"], "2 texts but 1 pairs"),
    ],
)
def test_what_cannot_be_asked_is_refused(finder: cl.Model, texts: Any, pairs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        finder.predict(texts, pairs)
