"""Remakes the demo checkpoint from a seed: `python -m demo --seed 0`.

Trains, saves the folder in the form of the hub's NaFlex checkpoints, then loads what was saved, as
anyone would, and judges that. The figures go to `heldout.json` in the folder and from there into
the model card. `--judge` skips the training and judges the folder that is there.
"""

import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from tqdm import tqdm
from transformers import Siglip2ImageProcessorPil, Siglip2Model, Siglip2Tokenizer

from demo import tokenizer
from demo.batch import all_scenes, families, trained_scenes
from demo.card import card
from demo.exam import examine
from demo.lesson import Lesson
from demo.network import build
from litapi.demo.caption import CHOICES, STRANGERS, WRAPPERS, varied
from litapi.demo.drawing import Scene
from litapi.demo.heldout import PAIRS

FOLDER = Path(__file__).parent.parent / "litapi" / "demo" / "checkpoint"
FIGURES = "heldout.json"
STEPS = 1200
SAVE_EVERY = 150


def make(seed: int, steps: int, out: Path, threads: int = 2) -> dict[str, object]:
    """Trains and saves; returns what the card says of the training."""
    started, cpu = time.perf_counter(), time.process_time()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)  # or two threads add up in an order of their own
    scenes = trained_scenes()
    words = tokenizer.train(_corpus(scenes, seed))
    model = build(len(words))
    _save_processor(words, out)
    lesson = Lesson(model, words, scenes, seed)
    with tqdm(lesson.steps(steps), total=steps, unit="step") as progress:
        for step, loss in enumerate(progress, start=1):
            progress.set_postfix(loss=f"{loss:.2f}")
            if step % SAVE_EVERY == 0:
                model.save_pretrained(out)
    model.save_pretrained(out)
    return {
        "seed": seed,
        "steps": steps,
        "threads": threads,
        "seconds": round(time.perf_counter() - started),
        "cpu_seconds": round(time.process_time() - cpu),
        "megabytes": round(sum(path.stat().st_size for path in out.iterdir()) / 1e6, 1),
        **_sizes(model, words, scenes),
    }


def _corpus(scenes: Sequence[Scene], seed: int) -> list[str]:
    rng = Random(f"corpus {seed}")
    captions = [
        varied(scene.stating(*rng.sample(list(CHOICES), rng.randint(1, len(CHOICES)))), rng)
        for scene in families(scenes, 8000, rng)
    ]
    return captions + [wrapper.format(name) for wrapper in WRAPPERS for name in STRANGERS]


def _save_processor(words: Siglip2Tokenizer, out: Path) -> None:
    """As on the hub: two files side by side, and the image processor by its neutral name."""
    words.save_pretrained(out)
    settings = Siglip2ImageProcessorPil().to_dict() | {
        "image_processor_type": "Siglip2ImageProcessor",
        "processor_class": "Siglip2Processor",
    }
    (out / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def _sizes(
    model: Siglip2Model, words: Siglip2Tokenizer, scenes: Sequence[Scene]
) -> dict[str, object]:
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(words),
        "trained_scenes": len(scenes),
        "logit_scale": round(model.logit_scale.exp().item(), 3),
        "logit_bias": round(model.logit_bias.item(), 3),
    }


def _arguments() -> Namespace:
    parser = ArgumentParser(description="Train the demo checkpoint and write its model card.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--judge", action="store_true", help="keep the weights, redo the figures")
    return parser.parse_args()


def judge(training: dict[str, object], out: Path) -> str:
    """Writes the figures and the card, and returns the card."""
    figures = {"training": training, **examine(out)}
    (out / FIGURES).write_text(json.dumps(figures, indent=2) + "\n")
    text = card(figures, PAIRS, sum(1 for _ in all_scenes()))
    ships = out.resolve() == FOLDER.resolve()
    ((FOLDER.parent if ships else out) / "README.md").write_text(text)
    return text


def main() -> None:
    a = _arguments()
    if a.judge:
        training = json.loads((a.out / FIGURES).read_text())["training"]
    else:
        training = make(a.seed, a.steps, a.out, a.threads)
    print(judge(training, a.out))


if __name__ == "__main__":
    main()
