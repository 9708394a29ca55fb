import dataclasses
import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import cli
from dpsjax.loop.metrics import read_records
from dpsjax.loop.prompts import tokenize
from dpsjax.policy import load_checkpoint
from dpsjax.run.config import ModelConfig
from dpsjax.run.language import (
    as_text,
    folder_digest,
    for_language_model,
    is_checkpoint_folder,
)
from dpsjax.tasks.base import Problem, stop_ids
from dpsjax.tasks.countdown import CD4, countdown, question, verify
from tests.run import tiny

pytest.importorskip("tokenizers", reason="needs the extra: hf")
pytest.importorskip("jinja2", reason="needs the extra: hf")

from tests.run.folders import TEMPLATE, logits, write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    write_folder(path)
    return path


@pytest.fixture(scope="module")
def plain():
    return countdown(8, 4, 0, sizes=(2,), weights=(1.0,))


def test_a_model_with_a_template_is_asked_in_words(folder, plain):
    task = for_language_model(plain, folder)
    numbers, target = plain.train[0].answer["numbers"], plain.train[0].answer["target"]
    prompt = task.train[0].prompt
    assert prompt.startswith("<|user|>Using the numbers [") and prompt.endswith("<|assistant|>")
    assert f"[{numbers[0]}, {numbers[1]}], create an equation that equals {target}." in prompt
    assert "each number can only be used once. Show your work in <think> </think> tags." in prompt
    longest = max(len(task.tokenizer.encode(p.prompt)) for p in (*task.train, *task.test))
    assert task.prompt_tokens == longest
    assert task.fingerprint() != plain.fingerprint()


def test_what_is_between_the_last_tags_counts(folder, plain):
    task = for_language_model(plain, folder)
    problem = task.train[0]
    first, second = problem.answer["numbers"]
    written = [f"{x}{sign}{y}" for sign in "+-*/" for x, y in ((first, second), (second, first))]
    right = next(text for text in written if plain.score([plain.train[0]], [text])[0].correct)
    tagged = f"<think>no</think><answer> {right} </answer>"
    two = f"<answer>1</answer><answer>{right}</answer>"
    responses = [tagged, two, right, f"{right} is it", ""]
    found = task.score([problem] * 5, responses)
    assert [score.correct for score in found] == [True, True, False, False, False]
    assert [score.reward for score in found] == [1, 1, 0, 0, 0]
    lenient = for_language_model(
        countdown(8, 4, sizes=(2,), weights=(1.0,), tags="optional"), folder
    )
    found = lenient.score([problem] * 5, responses)
    assert [score.correct for score in found] == [True, True, True, False, False]


def test_published_rewards_are_one_a_tenth_and_none(folder):
    task = for_language_model(countdown(4, 2, response_tokens=64, **CD4), folder)
    problem = task.train[0]
    numbers, target = problem.answer["numbers"], problem.answer["target"]
    wrong = [
        f"<answer>{text}</answer>" for text in ("+".join(map(str, numbers)), "1", "1+", "", "x")
    ]
    right = next(
        text
        for order in itertools.permutations(numbers)
        for signs in itertools.product("+-*/", repeat=3)
        for shape in (
            "{0}{4}{1}{5}{2}{6}{3}",
            "({0}{4}{1}){5}({2}{6}{3})",
            "(({0}{4}{1}){5}{2}){6}{3}",
            "({0}{4}({1}{5}{2})){6}{3}",
            "{0}{4}(({1}{5}{2}){6}{3})",
        )
        if verify(text := shape.format(*order, *signs), numbers, target).correct
    )
    assert len(numbers) == 4 and target <= 99
    texts = [f"<think>{right}</think><answer>{right}</answer>", *wrong, right]
    found = task.score([problem] * 7, texts)
    assert [score.reward for score in found] == [1, 0.1, 0.1, 0, 0, 0, 0]
    assert [score.correct for score in found] == [True] + [False] * 6


def test_responses_end_at_any_stop_token_and_nothing_in_them_vanishes(folder, plain):
    """What a verifier would not see, it could not judge: 1<|assistant|>2 is not 12."""
    tokenizer = for_language_model(plain, folder).tokenizer
    one, end, user, assistant = tokenizer.encode("1<|end|><|user|><|assistant|>")
    assert tokenizer.decode([one, 263, one, end, one]) == "1\ufffd1"
    assert tokenizer.decode([263, 263]) == "\ufffd\ufffd" and tokenizer.decode([]) == ""
    assert tokenizer.decode([one, user, one]) == "1"
    assert tokenizer.decode([one, assistant, one]) == "1<|assistant|>1"
    assert stop_ids(tokenizer) == (end, user)


def test_messages_and_settings_reach_the_template(tmp_path, plain):
    write_folder(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["chat_template"] = TEMPLATE + "{{ mood }}"
    path.write_text(json.dumps(settings), encoding="utf-8")
    talk = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"})
    asked = dataclasses.replace(plain, train=(Problem(talk, None, ""),), words=None)
    found = for_language_model(asked, tmp_path, {"mood": "!"})
    assert found.train[0].prompt == "<|user|>Be brief.<|end|><|user|>1+1?<|end|><|assistant|>!"
    assert found.train[0].id == asked.train[0].id
    path.write_text(json.dumps(settings | {"chat_template": ""}), encoding="utf-8")
    assert for_language_model(asked, tmp_path).train[0].prompt == "Be brief.\n\n1+1?"
    assert as_text(plain) is plain


def test_without_a_template_the_question_stands_in_a_conversation(tmp_path, plain):
    write_folder(tmp_path, template=False)
    prompt = for_language_model(plain, tmp_path).train[0].prompt
    assert prompt.startswith("A conversation between User and Assistant.")
    assert f"\nUser: {question(plain.train[0])}\nAssistant: " in prompt
    wordless = dataclasses.replace(plain, words=None)
    assert for_language_model(wordless, tmp_path).train[0].prompt == plain.train[0].prompt


def test_without_a_template_prompts_open_with_the_tokenizers_own_bos(tmp_path, plain):
    write_folder(tmp_path, template=False)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings |= {"bos_token": "<|user|>", "add_bos_token": True}
    path.write_text(json.dumps(settings), encoding="utf-8")
    task = for_language_model(plain, tmp_path)
    tokens, length, _ = tokenize(task.train, task.tokenizer, task.prompt_tokens)
    first = tokens[np.arange(len(task.train)), task.prompt_tokens - length]
    assert (first == task.tokenizer.chat.backend.token_to_id("<|user|>")).all()


def test_folders_are_told_apart(folder, tmp_path):
    assert is_checkpoint_folder(str(folder)) and not is_checkpoint_folder("base")
    write_folder(tmp_path)
    assert folder_digest(tmp_path) == folder_digest(folder)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": ""}))
    assert folder_digest(tmp_path) != folder_digest(folder)


def test_a_vocabulary_larger_than_the_embedding_is_refused(tmp_path):
    write_folder(tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"word{i}": 260 + i for i in range(20)}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="vocabulary of 264 tokens"):
        tiny.easy_run(tiny.config(model=ModelConfig(init=str(tmp_path))))


OPTIONS = (
    "--task.problems 8 --task.held-out 4 --task.sizes 2 --task.weights 1 --prompts 2 "
    "--task.response-tokens 8 --grpo.rollouts-per-prompt 2 --evaluation.problems 2 "
    "--evaluation.samples 1 --loss.entropy-coefficient 0.1 --grpo.learning-rate 1e-2 "
    "--steps 2 --mesh.data 1 --mesh.fsdp 2 --model.dtype bfloat16 --model.remat full"
)


@pytest.mark.slow
def test_train_a_checkpoint_folder_and_write_one_back(folder, tmp_path, capsys):
    code = cli.main(
        [
            "train",
            "countdown",
            *("--preset", "dps-countdown-3b", "--grpo.mini-batch", "2"),
            *OPTIONS.split(),
            "--model",
            str(folder),
            "--out",
            str(tmp_path / "run"),
        ]
    )
    assert code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "preset dps-countdown-3b (Qwen2.5-3B; recipe/dps/scripts/countdown/" in said
    assert "steps=2, rollout.prompts=2" in said and "task.format_reward=0.1" in said
    assert len(read_records(tmp_path / "run" / "metrics.jsonl")) == 2
    exported = tmp_path / "run" / "model"
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (exported / name).read_bytes() == (folder / name).read_bytes()
    config, params = load_checkpoint(exported)
    assert config == load_checkpoint(folder)[0]
    tokens = np.arange(5, dtype=np.int32)[None]
    ours = np.asarray(logits(config, params, jnp.asarray(tokens)))
    transformers = pytest.importorskip("transformers", reason="needs the extra: parity")
    torch = pytest.importorskip("torch", reason="needs the extra: parity")
    model = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    with torch.no_grad():
        theirs = model(torch.tensor(tokens, dtype=torch.long)).logits[0, -1].numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
