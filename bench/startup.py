"""How long `tenfold --help` and `tenfold plan` of an 8B model take, also with everything left open; none imports torch.

python bench/startup.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from compileall import compile_dir
from pathlib import Path

import tenfold
from measure import tenfold_command, write_result

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu",
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 128000, "eos_token_id": 128009,
}  # fmt: skip
"""The published configuration of Llama-3.1-8B."""

OPEN = (
    *("--set", "cuts.quantize={storage: auto, compute: auto}", "--set", "cuts.lora=on"),
    *("--set", "train.optimizer=auto", "--set", "train.batch_size=64"),
)
"""Everything that a recipe can leave to the planner: over 10,000 ways on more than 20 GPUs."""

ROWS = 2_000
RUNS = 9


def make_job(folder: Path) -> Path:
    """An 8B model on paper, a small tokenizer, and rows of GSM8K's size."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    model = folder / "llama-8b"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(LLAMA_8B))
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(model / "tokenizer.json"))
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "unk_token": "<unk>"}))
    rows = [{"prompt": "word " * (20 + n % 90), "completion": "answer " * (40 + n % 160)} for n in range(ROWS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = folder / "recipe.yaml"
    recipe.write_text("model: llama-8b\ntask: sft\ndata: {train: rows.jsonl}\nmachine: auto\n")
    return recipe


def seconds(command: list[str]) -> float:
    """Wall seconds of one process."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, write the result."""
    compile_dir(tenfold.__path__[0], quiet=1)  # as pip does; an environment may forbid Python to
    with tempfile.TemporaryDirectory() as folder:
        recipe = make_job(Path(folder))
        plan = tenfold_command("plan", str(recipe), "--json")
        commands = {"help": tenfold_command("--help"), "plan_8b": plan, "plan_8b_all_open": [*plan, *OPEN]}
        rows = []
        for _ in range(RUNS):
            rows.append({name: seconds(command) for name, command in commands.items()})
        torchless = {}
        for name, command in commands.items():
            program = (
                f"import sys; sys.argv = {['tenfold', *command[3:]]!r}\nfrom tenfold.cli import main\n"
                "try: main()\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
            )
            torchless[name] = (
                subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
            )
    summary = {name: statistics.median(row[name] for row in rows) for name in commands}
    print(json.dumps({"median_seconds": summary, "without_torch": torchless}))
    write_result(
        "startup", {"runs": RUNS, "rows_of_data": ROWS}, rows, {"median_seconds": summary, "without_torch": torchless}
    )


if __name__ == "__main__":
    main()
