"""The policy: transformer, sampling, log-probabilities, and weights in and out."""

import dpsjax.extras.train  # says what is missing
from dpsjax.policy.checkpoint import load_checkpoint, save_checkpoint, stored_config
from dpsjax.policy.config import Compute, PolicyConfig, Rope, tiny_config
from dpsjax.policy.decode import Rollouts, Sampling, generate
from dpsjax.policy.log_probs import token_log_probs
from dpsjax.policy.padding import left_pad
from dpsjax.policy.pictures import picture_batch
from dpsjax.policy.sharding import shardings
from dpsjax.policy.tokenizer import ChatTokenizer, load_tokenizer
from dpsjax.policy.transformer import Policy, abstract_policy
from dpsjax.policy.vision import Images
from dpsjax.policy.vision_config import VisionConfig, tiny_vision
from dpsjax.policy.weights import load_weights, save_weights

__all__ = [
    "ChatTokenizer",
    "Compute",
    "Images",
    "Policy",
    "PolicyConfig",
    "Rollouts",
    "Rope",
    "Sampling",
    "VisionConfig",
    "abstract_policy",
    "generate",
    "left_pad",
    "load_checkpoint",
    "load_tokenizer",
    "load_weights",
    "picture_batch",
    "save_checkpoint",
    "save_weights",
    "shardings",
    "stored_config",
    "tiny_config",
    "tiny_vision",
    "token_log_probs",
]
