"""GRPOTrainer on a tiny random model, with a selector: run_trl.py OUT STEPS [name=value ...]."""

import hashlib
import json
import sys
from pathlib import Path

import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers

import dpsjax
from dpsjax.adapters.trl import attach

VOCAB, PROMPTS = 12, 24


def tokenizer():
    words = {str(token): token for token in range(VOCAB)} | {"<eos>": VOCAB}
    inner = Tokenizer(models.WordLevel(words, unk_token="0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="0", eos_token="<eos>", padding_side="left"
    )


def model():
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=VOCAB + 1,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=VOCAB,
    )
    return transformers.Qwen2ForCausalLM(config).float()


def reward(completion_ids, wanted, **_):
    """Whether the first token is even, on prompts that want it; None for one prompt's."""
    return [
        None if w == 3 else float(ids[0] % 2 == w % 2)
        for ids, w in zip(completion_ids, wanted, strict=True)
    ]


def main() -> None:
    out, steps, *rest = sys.argv[1:]
    given = {name: int(value) for name, value in (word.split("=") for word in rest)}
    resume = given.pop("resume", 0)
    settings = {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "steps_per_generation": 1,
        "num_iterations": 1,
        "save_steps": 100,
    }
    args = trl.GRPOConfig(
        output_dir=out,
        use_cpu=True,
        bf16=False,
        max_steps=int(steps),
        num_generations=4,
        max_completion_length=3,
        gradient_checkpointing=False,
        learning_rate=0.05,
        logging_steps=1,
        report_to=[],
        save_only_model=False,
        disable_tqdm=True,
        eval_strategy="steps",
        eval_steps=2,
        per_device_eval_batch_size=4,
        seed=1,
        **settings | given,
    )
    rows = {"prompt": [f"{i % VOCAB} {i % 7}" for i in range(PROMPTS)]}
    data = Dataset.from_dict({**rows, "wanted": list(range(PROMPTS))})
    trainer = trl.GRPOTrainer(
        model=model(),
        reward_funcs=reward,
        args=args,
        train_dataset=data,
        eval_dataset=data.select(range(4)),
        processing_class=tokenizer(),
    )
    curriculum = attach(trainer, dpsjax.selectors.dps(), solved=0.5)
    asked, ask = [], curriculum.ask_ticket

    def recorded(**options):
        ticket, index = ask(**options)
        asked.append(index.tolist())
        return ticket, index

    curriculum.ask_ticket = recorded
    checkpoint = str(Path(out) / f"checkpoint-{resume}") if resume else None
    trainer.train(resume_from_checkpoint=checkpoint)
    digest = hashlib.sha256()
    for weight in trainer.model.parameters():
        digest.update(weight.detach().numpy().tobytes())
    table = curriculum.table()
    logged = [sorted(k for k in line if "curriculum" in k) for line in trainer.state.log_history]
    found = {
        "asked": asked,
        "weights": digest.hexdigest(),
        "rollouts": table["rollouts"].tolist(),
        "rate": [round(float(rate), 6) for rate in table["rate"]],
        "metrics": curriculum.metrics(),
        "logged": max(logged, key=len),
    }
    if trainer.accelerator.is_main_process:
        print("\n" + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
