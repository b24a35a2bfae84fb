"""A training run from its file to a model folder. This is the page to read.

Killed at any moment and started again with the same file, it goes on from its last checkpoint, with the batches that it would have had.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import torch
import yaml

from pipeline.training.average import averaged
from pipeline.training.batches import BatchStream
from pipeline.training.card import model_card
from pipeline.training.checkpoint import Stand, best_name, check_identity, load_checkpoint, save_checkpoint
from pipeline.training.curriculum import TaskRows, materials_of, read_tasks, reference_words, teach, texts_of
from pipeline.training.curves import draw_curves
from pipeline.training.export import save_model
from pipeline.training.folder import LOG, MODEL, RESULT, RunFolder
from pipeline.training.judge import check_scorer, loss_of, rouge_of_folder
from pipeline.training.progress import ProgressLine, Standing, progress_line
from pipeline.training.ranks import Asked, Ranks, autocast_dtype, joined
from pipeline.training.settings import WITHOUT_ROUGE, TrainJob, plain
from pipeline.training.start import Start, prepare_start
from pipeline.training.trainer import Course, StepFigures, Trainer
from schemas.errors import ChartmillError
from transforms.engine import forbid_hub_traffic
from transforms.engine.hardware import usable_cores
from transforms.models import resolve_model

_LOOK = "look"
_SMOOTHED = 20  # steps whose mean loss the progress line shows


class Interrupted(ChartmillError):
    """The run was asked to stop and has saved where it stands."""


def train(job: TrainJob, style: str = "auto") -> dict[str, Any]:
    """Train, or go on training, and return what result.json holds, and `model`, the model's folder. `style`: of the progress line.

    Raises ConfigurationError for what cannot be begun, Interrupted after SIGTERM or Ctrl-C.
    """
    if job.dev.score == "rouge" and job.tasks[job.first_task].objective not in WITHOUT_ROUGE:
        check_scorer()
    threads = usable_cores() if job.machine.threads == "auto" else job.machine.threads
    torch.set_num_threads(threads)
    files = resolve_model(job.model.start, allow_download=job.model.allow_download)
    forbid_hub_traffic()
    folder = RunFolder(Path(job.output).expanduser())
    with joined(job.machine.device) as ranks, folder.alone() if ranks.first else nullcontext():
        rows = read_tasks(job)
        data = {name: task.facts() for name, task in rows.items()}
        identity = _identity(job, data, files.sha256)
        finished = folder.read_json(RESULT)
        if finished is not None:
            check_identity(finished["identity"], identity)
            return {**finished, MODEL: str(folder.path(MODEL))}
        # Before anything is written: a folder of another run stays as it is.
        found = load_checkpoint(folder, identity)
        if ranks.first:
            folder.write("config.yaml", yaml.safe_dump(plain(job), sort_keys=False))
            folder.write_json("data.json", data)
        rows = teach(job, rows, folder, ranks, threads)
        start = prepare_start(job, files, texts_of(job, rows), reference_words(job, rows))
        run = _Run(job, rows, start, folder, ranks, identity, threads)
        if found is not None:
            run.resume(*found)
        with Asked().listening() as asked, progress_line(style if ranks.first else "none") as line:
            run.go(asked, line)
        return {**(run.finish(files.id) if ranks.first else {}), MODEL: str(folder.path(MODEL))}


def _identity(job: TrainJob, data: Mapping[str, Any], start_sha256: str) -> dict[str, Any]:
    """What makes a run this one: all of its file that changes weights, its data, its start."""
    settings = plain(job)
    del settings["machine"]
    return {**settings, "data": data, "start_sha256": start_sha256}


@dataclass(slots=True)
class _Clock:
    """Seconds of work, those of earlier processes included."""

    before: float = 0.0
    begun: float = field(default_factory=time.monotonic)

    @property
    def here(self) -> float:
        return time.monotonic() - self.begun


class _Run:
    """A run at work: the trainer, where it stands, and what is written down about it."""

    def __init__(
        self, job: TrainJob, rows: Mapping[str, TaskRows], start: Start, folder: RunFolder, ranks: Ranks, identity: Any, threads: int
    ) -> None:
        self._job, self._start, self._folder, self._ranks, self._identity, self._threads = job, start, folder, ranks, identity, threads
        materials = materials_of(job, {name: task.train for name, task in rows.items()}, start)
        self._dev = {name: task.dev for name, task in rows.items()}
        self._dev_materials = materials_of(job, self._dev, start, needed=False)
        self._judged = any(self._dev.values())
        stream = BatchStream(materials, job.fit.tokens_per_batch, job.seed)
        steps = ceil(stream.count(job.fit.epochs) / job.fit.batches_per_step)
        self._course = Course(materials, stream, start.codec, min(steps, job.fit.max_steps or steps), job.seed)
        self._dtype = autocast_dtype(job.machine.dtype, ranks.device)
        self._trainer = Trainer(start.model, self._course, job.fit, ranks, self._dtype)
        self._stand = Stand()
        self._clock = _Clock()
        self._recent: deque[StepFigures] = deque(maxlen=_SMOOTHED)
        self._unlogged: list[StepFigures] = []

    def resume(self, stand: Stand, state: dict[str, Any]) -> None:
        self._stand = stand
        self._clock = _Clock(before=stand.seconds)
        self._trainer.resume(state, stand.step)

    def go(self, asked: Asked, line: ProgressLine) -> None:
        """Steps until the last, or until looking no longer gets better. Raises Interrupted once it has saved."""
        if self._ranks.first:
            self._forget_later_lines()
        begun, stand = self._stand.step, self._stand
        if self._judged and not begun:
            self._look()  # at the start: what comes out is never worse than that
        while stand.step < self._course.steps and not stand.stopped_early:
            figures = self._trainer.step(stand.step)
            stand.step += 1
            stand.tokens += figures.tokens
            stand.seconds = self._clock.before + self._clock.here
            self._note(figures)
            last = stand.step == self._course.steps
            if self._judged and (stand.step % self._job.dev.every == 0 or last):
                self._look()
            if self._ranks.first:
                line.show(self._standing(stand.step - begun))
            stop = bool(self._ranks.total([float(asked.stop)])[0])
            if stand.step % self._job.machine.checkpoint_every == 0 or stand.stopped_early or stop or last:
                self._save()
            if stop and not last:
                raise Interrupted(f"asked to stop after step {stand.step} of {self._course.steps}; all of it is saved, run again to go on")

    def _note(self, figures: StepFigures) -> None:
        self._recent.append(figures)
        self._unlogged.append(figures)
        if self._ranks.first and (self._stand.step % self._job.machine.log_every == 0 or self._stand.step == self._course.steps):
            self._folder.append(LOG, self._line())
            self._unlogged.clear()

    def _line(self) -> dict[str, Any]:
        """Of the steps since the last line."""
        some = self._unlogged
        names = {name for figures in some for name in figures.losses}
        losses = {
            name: sum(f.losses[name] * f.learned[name] for f in some if name in f.losses) / sum(f.learned.get(name, 0.0) for f in some)
            for name in sorted(names)
        }
        return {
            "step": self._stand.step,
            "loss": round(_mean_loss(some), 5),
            "losses": {name: round(loss, 5) for name, loss in losses.items()},
            "learning_rate": some[-1].learning_rate,
            "gradient_norm": round(some[-1].gradient_norm, 4),
            "tokens_per_second": round(self._stand.tokens / max(self._stand.seconds, 1e-9), 1),
            "seconds": round(self._stand.seconds, 1),
        }

    def _look(self) -> None:
        """Judge the model as it is, in the first process; keep its weights if they are the best so far."""
        self._ranks.from_first(self._judge() if self._ranks.first else None)
        best = self._ranks.from_first([self._stand.best_step, self._stand.looks_since_best])
        self._stand.best_step, self._stand.looks_since_best = int(best[0]), int(best[1])
        patience = self._job.dev.patience
        self._stand.stopped_early = patience is not None and self._stand.looks_since_best >= patience

    def _judge(self) -> list[float]:
        stand, model = self._stand, self._trainer.model
        with averaged(model, self._trainer.average):
            loss = loss_of(model, self._dev_materials, self._start.codec, self._job.fit.tokens_per_batch, self._ranks.device, self._dtype)
            figures = {"loss": loss, "score": -loss, **self._rouge(model)}
            if stand.judged(figures):
                weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
                self._folder.write_with(best_name(stand.step), lambda file: torch.save(weights, file))
        self._folder.append(LOG, {"step": stand.step, _LOOK: {name: round(value, 5) for name, value in figures.items()}})
        return [figures["score"]]

    def _rouge(self, model: Any) -> dict[str, float]:
        """Of the first task's summaries, if that is what counts."""
        name = self._job.first_task
        task = self._job.tasks[name]
        if self._job.dev.score != "rouge" or task.objective in WITHOUT_ROUGE or not self._dev[name]:
            return {}
        self._folder.write_folder(_LOOK, lambda folder: save_model(model, self._start, task, self._start.markers.get(name), folder))
        figures = rouge_of_folder(self._folder.path(_LOOK), self._dev[name], task, self._ranks.device.type, self._threads)
        torch.set_num_threads(self._threads)  # the engine's lanes took a core each
        return figures

    def _save(self) -> None:
        if self._ranks.first:
            save_checkpoint(self._folder, self._identity, self._stand, self._trainer.state())
        self._ranks.wait()

    def _standing(self, done_here: int) -> Standing:
        stand, shown = self._stand, ""
        if stand.best:
            shown = f"dev ROUGE {stand.best['score']:.1f}" if "rouge1" in stand.best else f"dev loss {stand.best['loss']:.3f}"
        rate = stand.tokens / max(stand.seconds, 1e-9)
        return Standing(stand.step, self._course.steps, done_here, self._clock.here, _mean_loss(list(self._recent)), rate, shown)

    def _forget_later_lines(self) -> None:
        """Lines of steps that a kill undid; at the start, all."""
        lines = [line for line in self._folder.read_lines(LOG) if line["step"] <= self._stand.step] if self._stand.step else []
        self._folder.write(LOG, "")
        for line in lines:
            self._folder.append(LOG, line)

    def finish(self, start_id: str) -> dict[str, Any]:
        """Write the model with its best weights, its card, the curves, and at last result.json."""
        stand, name, model = self._stand, self._job.first_task, self._trainer.model
        best = self._folder.path(best_name(stand.best_step))
        if stand.best and best.is_file():
            model.load_state_dict(torch.load(best, map_location="cpu", weights_only=True))
        with averaged(model, None if stand.best else self._trainer.average):
            marker = self._start.markers.get(name)
            task, weights = self._job.tasks[name], self._job.weights
            self._folder.write_folder(MODEL, lambda folder: save_model(model, self._start, task, marker, folder, weights))
        log = self._folder.read_lines(LOG)
        self._folder.write("curves.svg", draw_curves(log))
        result = self._result(start_id, log)
        self._folder.write("MODEL_CARD.md", model_card(self._job, result))
        self._folder.remove(_LOOK)
        self._folder.write_json(RESULT, result)
        return result

    def _result(self, start_id: str, log: list[dict[str, Any]]) -> dict[str, Any]:
        stand = self._stand
        examples = {
            material.name: {"examples": len(material), "cut": material.cut, "judged": len(self._dev[material.name])}
            for material in self._course.materials
        }
        return {
            "start": start_id,
            "model_sha256": resolve_model(str(self._folder.path(MODEL))).sha256,
            "parameters": sum(parameter.numel() for parameter in self._trainer.model.parameters()),
            "steps": self._course.steps,
            "stand": asdict(stand),
            "loss": next((line["loss"] for line in reversed(log) if "loss" in line), None),
            "dev": {name: value for name, value in stand.best.items() if name != "score"},
            "tasks": examples,
            "processes": self._ranks.world,
            "device": self._ranks.device.type,
            "dtype": str(self._dtype).removeprefix("torch."),
            "identity": self._identity,
        }


def _mean_loss(figures: list[StepFigures]) -> float:
    """Per learned token."""
    learned = [sum(f.learned.values()) for f in figures]
    return sum(f.loss * n for f, n in zip(figures, learned, strict=True)) / max(sum(learned), 1.0)
