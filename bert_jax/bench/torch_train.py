"""The peer of `bert-jax bench train`, run as a script: a step of pretraining with transformers' model in torch.

Its arguments are a folder and one of `bench.Way`. Reads `config.json`, `job.json` (the class of the model, the
recipe) and the batches; prints a line of JSON about itself, and one more for each number of steps that it reads.
"""

import json
import statistics
import sys
import time
from pathlib import Path


def main(folder: Path, way: str) -> None:
    import numpy as np
    import torch
    import transformers

    from bert_jax.bench import forget_peak_memory, peak_memory
    from bert_jax.bench.torch_finetune import config_of, recipe

    begin = time.perf_counter()
    transformers.logging.set_verbosity_error()
    job = json.loads((folder / "job.json").read_text())
    device, bf16 = "cuda" if torch.cuda.is_available() else "cpu", way.endswith("-bf16")
    torch.manual_seed(job["seed"])
    model = getattr(transformers, job["class"])(config_of(folder)).train().to(device)
    optimizer, schedule = recipe(model, job, fused=True)
    forward = torch.compile(model) if way.startswith("compiled") else model
    batches = [np.load(file) for file in sorted(folder.glob("batch-*.npz"))]
    batches = [{name: torch.tensor(batch[name], device=device).long() for name in batch.files} for batch in batches]

    def synchronize() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def run(steps: int) -> float:
        start = time.perf_counter()
        for i in range(steps):
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                loss = forward(**batches[i % len(batches)]).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), job["clip_norm"])
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        synchronize()
        return time.perf_counter() - start

    def product() -> float:
        n = 8192 if device == "cuda" else 2048
        x = torch.randn(n, n, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
        times = []
        for _ in range(11):
            start = time.perf_counter()
            x @ x
            synchronize()
            times.append(time.perf_counter() - start)
        return 2 * n**3 / statistics.median(times[1:])

    def memory() -> int:
        return torch.cuda.max_memory_allocated() if device == "cuda" else peak_memory()

    def tell(**what) -> None:
        print(json.dumps(what), flush=True)

    run(1)
    first_step = time.perf_counter() - begin
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    tell(versions=versions, device=device, first_step=first_step, product=product())
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    forget_peak_memory()
    for line in sys.stdin:
        tell(seconds=run(int(line)), peak_bytes=memory())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
