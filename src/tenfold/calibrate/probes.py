"""What is timed to know a machine: each probe makes another kind of work weigh most."""

from __future__ import annotations

from typing import Any

from tenfold.calibrate.probe import Probe
from tenfold.cuts import Fuse, LoRA, Pack, Quantize
from tenfold.machine import Machine

LORA = LoRA(rank=16, alpha=32.0)


def decoder(hidden: int, layers: int, vocabulary: int, head: int = 64) -> dict[str, Any]:
    """A Llama of these sizes: feed-forward part 3.5 times as wide, a quarter as many key heads."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": int(3.5 * hidden),
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // head,
        "num_key_value_heads": max(1, hidden // head // 4),
        "head_dim": head,
        "vocab_size": vocabulary,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }


def encoder(hidden: int, layers: int, dropout: float = 0.0) -> dict[str, Any]:
    """A BERT of these sizes."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 32,
        "vocab_size": 8192,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "pad_token_id": 0,
    }


def probes_of(machine: Machine) -> tuple[Probe, ...]:
    """Those for a CPU or a GPU, most telling first: who has less time stops early."""
    return _cpu_probes() if machine.vendor_kind == "cpu" else _gpu_probes(machine)


MIXED = (64, 50, 40, 33, 28, 24, 20, 17, 15, 13, 11, 10, 9, 8, 8, 8)


def _cpu_probes() -> tuple[Probe, ...]:
    return (
        Probe("products", decoder(1024, 2, 2048), "text", (128,) * 4, (LORA, Fuse())),
        Probe("launches", decoder(64, 8, 512), "text", (16,) * 2, (LORA,)),
        Probe("narrow layers", encoder(384, 4), "classify", (32,) * 16, (LORA,)),
        Probe("logits in chunks", decoder(256, 1, 32768), "text", (128,) * 4, (LORA, Fuse())),
        Probe("long rows", decoder(512, 2, 512), "text", (1024,), (LORA, Fuse())),
        Probe("packed rows", decoder(512, 4, 2048), "text", MIXED, (LORA, Pack(512), Fuse())),
        Probe("all weights", decoder(512, 4, 4096), "text", (64,) * 4, (Fuse(),)),
        Probe("large tensors", decoder(512, 1, 32768), "text", (64,) * 4, (Fuse(),)),
        Probe("padded rows", encoder(384, 4), "classify", MIXED * 2, ()),
        Probe("dropout", encoder(384, 4, 0.1), "classify", (64,) * 16, (LORA,)),
        Probe("whole logits", decoder(256, 1, 16384), "text", (128,) * 2, (LORA,)),
        Probe("stored weights", decoder(512, 2, 512), "text", (32,) * 2, (Quantize("nf4"), LORA, Fuse())),
        Probe("eight-bit moments", decoder(512, 2, 512), "text", (16,) * 2, (Fuse(),), optimizer="adamw_8bit"),
        Probe("wide layers", decoder(2048, 1, 512), "text", (256,), (LORA, Fuse())),
    )


def _gpu_probes(machine: Machine) -> tuple[Probe, ...]:
    eager = (
        Probe("products", decoder(4096, 2, 4096, 128), "text", (1024,) * 8, (LORA, Fuse())),
        Probe("launches", decoder(256, 16, 512), "text", (64,) * 2, (LORA, Fuse())),
        Probe("logits in chunks", decoder(1024, 1, 128_000), "text", (512,) * 8, (LORA, Fuse())),
        Probe("long rows", decoder(1024, 4, 512), "text", (8192,), (LORA, Fuse())),
        Probe("padded rows", encoder(1024, 8), "classify", MIXED * 8, (LORA,)),
        Probe("all weights", decoder(2048, 4, 32_000), "text", (512,) * 8, (Fuse(),)),
        Probe("stored weights", decoder(4096, 2, 512, 128), "text", (256,) * 2, (Quantize("nf4"), LORA, Fuse())),
        Probe("whole logits", decoder(1024, 1, 64_000), "text", (256,) * 8, (LORA,)),
    )
    if not machine.supports_bf16:
        return eager
    steady = (Pack(8192), Fuse(compile=True))
    compiled = (
        Probe("compiled", decoder(4096, 2, 4096, 128), "text", (1024,) * 8, (LORA, *steady)),
        Probe(
            "compiled, ragged", decoder(2048, 2, 4096, 128), "text", tuple(8 * x for x in MIXED * 3), (LORA, *steady)
        ),
        Probe("compiled, stored", decoder(4096, 2, 512, 128), "text", (1024,) * 8, (Quantize("nf4"), LORA, *steady)),
    )
    fp8 = (Probe("compiled, fp8", decoder(4096, 2, 512, 128), "text", (1024,) * 8,
                 (Quantize("fp8", "fp8"), LORA, *steady)),) if machine.supports_fp8 else ()  # fmt: skip
    return (*eager[:2], *compiled[:1], *eager[2:], *fp8, *compiled[1:])  # those that compile take ten times as long
