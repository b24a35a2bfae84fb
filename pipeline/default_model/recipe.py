"""Train a selection model: a small BART that writes the markers of the sentences worth keeping.

    python -m pipeline.default_model.recipe --train reports.parquet=0.7 --train a.parquet,b.parquet=0.3 --work work/ --output model/

One command, one thread by default, deterministic on one machine for one seed. The encoder, started from a pretrained BERT or from a
model made before (`--start`), learns to gather each sentence in its marker and to tell its worth there, from a teacher
(`teacher.py`) and from the references, and to point at markers by it (`pointer.py`). Then the pointer becomes the
decoder: it writes the markers best first and ends when none is left.

Why a teacher: in the states of the pretrained encoder a marker tells little of its sentence, the mean of the sentence's
tokens much. Trained on the references alone, ten minutes on one core left ROUGE-1 on MultiClinSum gold_dev at 37.0; ten more
with the teacher's worth made it 38.2, by the worth told at the markers. The steps of the default take about two hours of one core.

Every few steps a checkpoint replaces the one before it by an atomic rename; started again with the
same arguments, training goes on from there. Published weights are a moving average (Polyak and Juditsky 1992).
"""

import argparse
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BartForConditionalGeneration, PreTrainedTokenizerFast

from pipeline.default_model.examples import (
    Collection,
    Example,
    Pair,
    draw_example,
    drop_units,
    first_targets,
    make_collection,
    read_pairs,
    read_texts,
    split_holdout,
)
from pipeline.default_model.folder import load_model, publish_model, summarize, tokenize_with
from pipeline.default_model.pointer import let_end, write_into_decoder
from pipeline.default_model.teacher import embed_with
from pipeline.default_model.trainee import Layout, Lesson, Trainee, Vocabulary, lay_out
from pipeline.default_model.warm_start import build_model, cut_tokenizer, minilm_folder
from pipeline.rouge import RougeScores, score_rouge
from transforms.private_files import replace_file
from transforms.selection import SelectionFormat

logger = logging.getLogger(__name__)

_MAX_GRADIENT = 1.0
_FEW_NOTES = 100
_CLIP = 4.0  # deviations of places and surface beyond which more says nothing
_CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What decides the weights, besides the data and the encoder.

    n_tokens: size of the vocabulary. steps: optimizer steps. frozen_layers: encoder layers kept as they are. n_holdout: pairs of the first
    file kept for the score. encoder_lr, head_lr: peak learning rates. average: decay of the moving average. drop_share: of the notes that
    lose units at random; max_drop: highest share of a note's units that it loses.
    """

    seed: int = 0
    n_tokens: int = 10_000
    steps: int = 2000
    notes_per_step: int = 6
    frozen_layers: int = 1
    n_holdout: int = 50
    encoder_lr: float = 2e-4
    head_lr: float = 1e-3
    warmup_steps: int = 40
    weight_decay: float = 0.02
    average: float = 0.985
    drop_share: float = 0.6
    max_drop: float = 0.5
    checkpoint_every: int = 25
    fmt: SelectionFormat = field(
        default_factory=lambda: SelectionFormat(
            n_markers=64,
            n_places=16,
            length_bounds=(40, 70, 100, 140, 200),
            budget_words=120,
            budget_share=0.5,
            max_source_tokens=1536,
            max_new_tokens=32,
            dialogue_words=200,
            dialogue_share=0.4,
            auto_dtype="float32",
        )
    )


def train(
    train_files: Sequence[tuple[Sequence[Path], float]],
    text_sources: Sequence[str],
    encoder: Path,
    work: Path,
    output: Path,
    settings: TrainSettings,
    start: Path | None = None,
) -> RougeScores | None:
    """Train, publish the model into `output`, return its score on the held-out pairs (None without any).

    `train_files`: files of one kind, which get one teacher, and how much of the training is theirs, in any unit; pairs of the first
    kind are held out. `start`: a model made before, whose vocabulary stays and whose markers must be those of the settings
    (ValueError). `work` holds the checkpoint; a checkpoint of other settings is refused with ValueError.
    """
    kinds = [(read_pairs(paths), share) for paths, share in train_files]
    first, holdout = split_holdout(kinds[0][0], settings.n_holdout, settings.seed)
    kinds[0] = (first, kinds[0][1])
    texts = [text for pairs, _ in kinds for pair in pairs for text in (pair.text, pair.reference)]
    model, tokenizer = _start(start, encoder, [*texts, *read_texts(text_sources, max_rows=500)], settings)
    embed = embed_with(encoder)
    corpus = [make_collection(pairs, share, settings.fmt, tokenize_with(tokenizer), embed) for pairs, share in kinds]
    logger.info("%s pairs, %d held out", [len(collection.examples) for collection in corpus], len(holdout))
    run = _Run(model, corpus, Vocabulary.of(tokenizer, settings.fmt), settings, work)
    if not run.resume():
        run.start_pointer()
    while run.step < settings.steps:
        run.advance()
        if run.step % settings.checkpoint_every == 0 or run.step == settings.steps:
            run.save()
    run.aim()
    score = _score(run.trainee.model, tokenizer, settings.fmt, holdout) if holdout else None
    logger.info("held-out ROUGE-1/2/Lsum %s", score)
    publish_model(run.trainee.model, tokenizer, settings.fmt, output)
    return score


def _start(
    start: Path | None, encoder: Path, texts: Sequence[str], settings: TrainSettings
) -> tuple[BartForConditionalGeneration, PreTrainedTokenizerFast]:
    if start is None:
        tokenizer = cut_tokenizer(encoder, texts, settings.n_tokens, settings.fmt.tokens(), settings.fmt.max_source_tokens)
        return build_model(encoder, tokenizer, settings.fmt, settings.seed), tokenizer
    model, tokenizer, fmt = load_model(start)
    if fmt.tokens() != settings.fmt.tokens() or fmt.max_source_tokens != settings.fmt.max_source_tokens:
        raise ValueError(f"{start} has other markers or another length than the settings")
    model.generation_config.max_new_tokens = settings.fmt.max_new_tokens
    return model, tokenizer


class _Run:
    """The state of a training run: weights, their average, optimizer, step."""

    def __init__(
        self,
        model: BartForConditionalGeneration,
        corpus: Sequence[Collection],
        vocabulary: Vocabulary,
        settings: TrainSettings,
        work: Path,
    ) -> None:
        width = corpus[0].examples[0].features.embeddings.shape[1]
        torch.manual_seed(settings.seed)
        self.trainee = Trainee(model, width, vocabulary.markers)
        self.corpus = corpus
        self.vocabulary = vocabulary
        self.settings = settings
        self.work = work
        self.step = 0
        self.optimizer = _optimizer(self.trainee, settings)
        features = [example.features for collection in corpus for example in collection.examples]
        self.centre = np.concatenate([each.embeddings for each in features]).mean(axis=0)
        plain = np.concatenate([each.plain() for each in features])
        self.plain_mean, self.plain_scale = plain.mean(axis=0), plain.std(axis=0) + 0.05
        self.began = time.monotonic()
        self.losses: list[list[float]] = []
        self.average: dict[str, Tensor] = {}
        work.mkdir(parents=True, exist_ok=True)

    def advance(self) -> None:
        """Do one optimizer step; a function of seed and step, so a resumed run is the same."""
        settings = self.settings
        torch.manual_seed(settings.seed * 1_000_003 + self.step)
        self.trainee.train()
        for index in range(settings.notes_per_step):
            losses = self.trainee.losses(*self._drawn(self.step * settings.notes_per_step + index))
            torch.autograd.backward(losses.total() / settings.notes_per_step)
            self.losses.append([float(loss.detach()) for loss in losses])
        self._update(_rate(self.step, settings))

    def _drawn(self, position: int) -> tuple[Layout, Lesson]:
        settings = self.settings
        collection, example = draw_example(self.corpus, position, settings.seed)
        rng = np.random.default_rng([settings.seed, position, 4])
        if rng.random() < settings.drop_share:
            example = drop_units(example, rng.uniform(0, settings.max_drop), rng)
        first_marker = int(rng.integers(settings.fmt.n_markers))
        layout = lay_out(example.unit_ids, example.wanted_words, self.vocabulary, settings.fmt, first_marker)
        return layout, self._lesson(collection, example)

    def _lesson(self, collection: Collection, example: Example) -> Lesson:
        features = example.features
        plain = ((features.plain() - self.plain_mean) / self.plain_scale).clip(-_CLIP, _CLIP)
        told = (features.embeddings - self.centre, plain, collection.teacher.worth(features), first_targets(example))
        embeddings, plain, worth, choice = (torch.from_numpy(values).float() for values in told)
        return Lesson(embeddings, plain, worth, choice)

    def _few(self) -> list[tuple[Example, Layout, Tensor]]:
        """Notes of the first collection as a run would mark them, and what the encoder makes of them, (tokens, width)."""
        fmt, few = self.settings.fmt, self.corpus[0].examples[:_FEW_NOTES]
        layouts = [lay_out(e.unit_ids, fmt.budget_words, self.vocabulary, fmt, i % fmt.n_markers) for i, e in enumerate(few)]
        return [(example, layout, self.trainee.states(layout)) for example, layout in zip(few, layouts, strict=True)]

    @torch.no_grad()
    def start_pointer(self) -> None:
        """Set the pointer to where the encoder is, and the moving average to where the training begins."""
        self.trainee.eval()
        few, teacher = self._few(), self.corpus[0].teacher
        worth = [torch.from_numpy(teacher.worth(example.features)) for example, _, _ in few]
        self.trainee.pointer.start([layout.source for _, layout, _ in few], [states for _, _, states in few], worth)
        self.average = {name: value.detach().clone() for name, value in self.trainee.named_parameters() if value.requires_grad}

    @torch.no_grad()
    def aim(self) -> None:
        """Keep the averaged weights and set the decoder."""
        self.trainee.load_state_dict(self.average, strict=False)
        self.trainee.eval()
        write_into_decoder(self.trainee.model, self.trainee.pointer)
        few = self._few()
        let_end(self.trainee.model, [layout.marker_ids for _, layout, _ in few], [states for _, _, states in few], self.vocabulary.markers)

    def _update(self, rate: float) -> None:
        nn.utils.clip_grad_norm_(self.trainee.parameters(), _MAX_GRADIENT)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.settings.average, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.trainee.named_parameters():
                if name in self.average:
                    self.average[name].lerp_(value, 1 - decay)
        if self.step % 20 == 0:
            parts = " ".join(f"{part:.3f}" for part in np.mean(self.losses, axis=0))
            logger.info("step %d losses %s %.0f s", self.step, parts, time.monotonic() - self.began)
            self.losses.clear()

    def save(self) -> None:
        """Replace the checkpoint; a kill at any moment leaves the old one or the new one."""
        state = {
            "settings": json.dumps(asdict(self.settings)),
            "step": self.step,
            "trainee": self.trainee.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        replace_file(self.work / _CHECKPOINT, lambda file: torch.save(state, file))

    def resume(self) -> bool:
        """Go on from the checkpoint if there is one, and tell so; ValueError if it was made with other settings."""
        path = self.work / _CHECKPOINT
        if not path.is_file():
            return False
        state = torch.load(path, weights_only=True)
        if state["settings"] != json.dumps(asdict(self.settings)):
            raise ValueError(f"{path} was made with other settings: give the same ones or another --work folder")
        self.step = state["step"]
        self.average = state["average"]
        self.trainee.load_state_dict(state["trainee"])
        self.optimizer.load_state_dict(state["optimizer"])
        logger.info("resumed at step %d", self.step)
        return True


def _optimizer(trainee: Trainee, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return an optimizer for the encoder's layers above the frozen ones and for the heads; all else is frozen.

    Embeddings stay as pretrained: a few hundred notes are too few to move them.
    """
    trainee.requires_grad_(False)
    for module in (trainee.model.model.encoder.layers[settings.frozen_layers :], trainee.content, trainee.plain, trainee.pointer):
        module.requires_grad_(True)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in trainee.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("model."), parameter.dim() > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": settings.encoder_lr if pretrained else settings.head_lr,
                "weight_decay": settings.weight_decay if is_matrix else 0.0,
            }
            for (pretrained, is_matrix), parameters in groups.items()
        ],
        lr=settings.encoder_lr,
        betas=(0.9, 0.98),
    )


def _rate(step: int, settings: TrainSettings) -> float:
    """Warm up linearly, fall along half a cosine to 3 %."""
    fall = 0.5 * (1 + math.cos(math.pi * step / max(1, settings.steps)))
    return min(1.0, (step + 1) / settings.warmup_steps) * (0.03 + 0.97 * fall)


def _score(
    model: BartForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    fmt: SelectionFormat,
    pairs: Sequence[Pair],
) -> RougeScores:
    selections = summarize(model, tokenizer, fmt, [pair.text for pair in pairs])
    return score_rouge([selection.text for selection in selections], [pair.reference for pair in pairs])


def _weighted(value: str) -> tuple[list[Path], float]:
    paths, _, share = value.rpartition("=")
    return [Path(path) for path in (paths or value).split(",")], float(share) if paths else 1.0


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="pipeline.default_model.recipe", description="Train a selection model.")
    parser.add_argument(
        "--train", type=_weighted, action="append", required=True, help="FILE or FILE,FILE=SHARE: Parquet, text and reference"
    )
    parser.add_argument("--texts", nargs="*", default=[], help="FILE or FILE:COLUMN, Parquet, more texts to choose the vocabulary from")
    parser.add_argument("--encoder", type=Path, default=None, help="folder of a BERT (default: the MiniLM package)")
    parser.add_argument("--start", type=Path, default=None, help="folder of a selection model to go on from")
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    parser.add_argument("--threads", type=int, default=1)
    defaults = TrainSettings()
    for name in ("seed", "steps", "n_holdout"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name))
    options = vars(parser.parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.pop("threads"))
    places = {name: options.pop(name) for name in ("train", "texts", "encoder", "start", "work", "output")}
    train(
        places["train"],
        places["texts"],
        places["encoder"] or minilm_folder(),
        places["work"],
        places["output"],
        TrainSettings(**options),
        places["start"],
    )


if __name__ == "__main__":
    main()
