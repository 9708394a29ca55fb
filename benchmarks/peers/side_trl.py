"""TRL's side: GRPOTrainer as it comes, on torch CPU, with transformers' Qwen2 and its generate."""

import tempfile
import time

import torch
import transformers
import trl
import workload as w
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers

# One more than the vocabulary: no response ends early.
EOS = w.VOCAB


def make_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Tokens are written as their numbers."""
    words = {str(token): token for token in range(w.VOCAB)} | {"<eos>": EOS}
    inner = Tokenizer(models.WordLevel(words, unk_token="0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="0", eos_token="<eos>", padding_side="left"
    )


def make_model() -> transformers.Qwen2ForCausalLM:
    """The shared architecture, random weights."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=w.VOCAB,
        hidden_size=w.WIDTH,
        intermediate_size=w.MLP,
        num_hidden_layers=w.LAYERS,
        num_attention_heads=w.HEADS,
        num_key_value_heads=w.KV_HEADS,
        rms_norm_eps=w.NORM_EPS,
        rope_parameters={"rope_type": "default", "rope_theta": w.ROPE_THETA},
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=EOS,
    )
    return transformers.Qwen2ForCausalLM(config).float()


def make_settings(out: str, steps: int, generate: int) -> trl.GRPOConfig:
    """Settings of the workload; ``generate`` sequences are generated at a time."""
    return trl.GRPOConfig(
        output_dir=out,
        use_cpu=True,
        bf16=False,
        max_steps=steps,
        per_device_train_batch_size=w.MICRO_BATCH,
        gradient_accumulation_steps=w.PROMPTS * w.GROUP // w.MICRO_BATCH,
        steps_per_generation=generate // w.MICRO_BATCH,
        gradient_checkpointing=False,
        num_generations=w.GROUP,
        max_completion_length=w.RESPONSE,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=0.0,
        epsilon=w.CLIP_LOW,
        epsilon_high=w.CLIP_HIGH,
        optim="adamw_torch",
        learning_rate=w.LEARNING_RATE,
        lr_scheduler_type="constant",
        adam_beta1=w.BETA1,
        adam_beta2=w.BETA2,
        adam_epsilon=w.ADAM_EPS,
        weight_decay=w.WEIGHT_DECAY,
        max_grad_norm=w.MAX_GRAD_NORM,
        report_to=[],
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_num_workers=0,
    )


class Steps(transformers.TrainerCallback):
    """Starts and stops the clock; a step's update is all of it but generation and scoring."""

    def __init__(self, clock: w.Clock):
        self.clock = clock

    def on_step_begin(self, args, state, control, **kwargs):
        """Begin."""
        self.clock.start()

    def on_step_end(self, args, state, control, **kwargs):
        """End."""
        self.clock.stop()
        step = self.clock.steps[-1]
        step["update"] = step["step"] - step.pop("rollout")


def reward(completion_ids, **_) -> list[float]:
    """The shared reward."""
    assert all(len(ids) == w.RESPONSE for ids in completion_ids), "a response ended early"
    return w.rewards(completion_ids).tolist()


def timed(clock: w.Clock, phase: str, call):
    """``call``, with its time accounted to a phase."""

    def run(*args, **kwargs):
        began = time.perf_counter()
        result = call(*args, **kwargs)
        clock.add(phase, began)
        return result

    return run


def main() -> None:
    """Run the steps and report."""
    args = w.arguments()
    steps = args.steps + 1
    texts = [" ".join(map(str, row)) for step in range(steps) for row in w.prompt_ids(step)]
    clock = w.Clock()
    with tempfile.TemporaryDirectory() as out:
        trainer = trl.GRPOTrainer(
            model=make_model(),
            reward_funcs=reward,
            args=make_settings(out, steps, args.generate or w.MICRO_BATCH),
            train_dataset=Dataset.from_dict({"prompt": texts}),
            processing_class=make_tokenizer(),
            callbacks=[Steps(clock)],
        )
        trainer._generate_single_turn = timed(clock, "generate", trainer._generate_single_turn)
        trainer._generate_and_score_completions = timed(
            clock, "rollout", trainer._generate_and_score_completions
        )
        trainer.train()
    parameters = sum(weight.numel() for weight in trainer.model.parameters())
    version = f"trl {trl.__version__}, torch {torch.__version__}"
    w.report(clock, side="trl", version=version, parameters=parameters)


if __name__ == "__main__":
    main()
