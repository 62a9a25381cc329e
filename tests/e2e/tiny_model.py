"""Write a language model with random weights: a real one to the engine, which loads it in a tenth of a second.

Its words are noise, so whatever form its answers have comes from the grammar alone. The vocabulary has ASCII bytes and
a few longer tokens, and no byte above: random weights would join those to what is not UTF-8, and the engine answers
such text with a server error.

Run as a program: ``python tiny_model.py PATH [SEED]``.
"""

import sys
from pathlib import Path

import gguf
import numpy as np

WIDTH, HIDDEN, HEADS = 32, 64, 2
CONTEXT = 32_768
WORDS = (" the", " a", "true", "false", "null", " risk", "low", "high", "ing", '": "', '", "', '":', "}]", "\\n", "://")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def letters() -> list[str]:
    """Return how byte-level vocabularies write each ASCII byte: printable ones as they are, others shifted by 256."""
    shifted = (byte for byte in range(128) if not 33 <= byte < 127)
    names = {byte: chr(256 + index) for index, byte in enumerate(shifted)}
    return [names.get(byte, chr(byte)) for byte in range(128)]


def vocabulary() -> tuple[list[str], list[int], list[str]]:
    """Return the tokens, their types and the merges that make the longer ones."""
    alphabet = letters()
    tokens, merges = [*SPECIAL, *alphabet], []
    for word in WORDS:
        parts = [alphabet[byte] for byte in word.encode()]
        while len(parts) > 1:
            left, right, *rest = parts
            if left + right not in tokens:
                tokens.append(left + right)
                merges.append(f"{left} {right}")
            parts = [left + right, *rest]
    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL))
    return tokens, [int(kind) for kind in kinds], merges


def write(path: Path, seed: int = 0) -> Path:
    """Write the model.

    Args:
        path: where.
        seed: of its weights.
    """
    random = np.random.default_rng(seed)
    tokens, kinds, merges = vocabulary()

    def noise(*shape: int, scale: float = 0.1) -> np.ndarray:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    model = gguf.GGUFWriter(path, "llama")
    model.add_context_length(CONTEXT)
    model.add_embedding_length(WIDTH)
    model.add_block_count(1)
    model.add_feed_forward_length(HIDDEN)
    model.add_head_count(HEADS)
    model.add_head_count_kv(HEADS)
    model.add_layer_norm_rms_eps(1e-5)
    model.add_rope_dimension_count(WIDTH // HEADS)
    model.add_vocab_size(len(tokens))
    model.add_tokenizer_model("gpt2")
    model.add_tokenizer_pre("gpt-2")
    model.add_token_list(tokens)
    model.add_token_types(kinds)
    model.add_token_merges(merges)
    model.add_bos_token_id(1)
    model.add_eos_token_id(2)
    model.add_chat_template(TEMPLATE)
    model.add_tensor("token_embd.weight", noise(len(tokens), WIDTH, scale=1.0))
    model.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    model.add_tensor("output.weight", noise(len(tokens), WIDTH, scale=0.5))
    for name in ("attn_norm", "ffn_norm"):
        model.add_tensor(f"blk.0.{name}.weight", np.ones(WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        model.add_tensor(f"blk.0.{name}.weight", noise(WIDTH, WIDTH))
    for name, shape in (("gate", (HIDDEN, WIDTH)), ("up", (HIDDEN, WIDTH)), ("down", (WIDTH, HIDDEN))):
        model.add_tensor(f"blk.0.ffn_{name}.weight", noise(*shape))
    model.write_header_to_file()
    model.write_kv_data_to_file()
    model.write_tensors_to_file()
    model.close()
    return path


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
