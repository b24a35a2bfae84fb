"""The model card of a run, from its figures alone: what was learned from, how, how well, and what nobody has checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.training.settings import TaskSection, TrainJob

_OBJECTIVES = {
    "generation": "writes summaries in its own words",
    "selection": "selects sentences: it writes markers, and the summary is the marked sentences word for word",
    "record": "writes records: tagged lines whose values it copies from the note",
    "denoise": "restores noised texts (pretraining)",
    "gap_sentences": "writes sentences that were taken out (pretraining)",
}
_NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeLsum": "ROUGE-Lsum", "loss": "loss per target token"}


def model_card(job: TrainJob, result: Mapping[str, Any]) -> str:
    """Markdown."""
    first = job.tasks[job.first_task]
    parts = [
        f"# A model trained by chartmill\n\nStarted from `{result['start']}`; {result['parameters'] / 1e6:.1f} million parameters. "
        f"It {_OBJECTIVES[first.objective]}.\nsha256 of the model's files: `{result['model_sha256']}`",
        _use(first),
        _data(job, result),
        _training(job, result),
        _scores(result),
        _LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


_LIMITS = """## Limits

- Every output is AI-generated and unreviewed; not for clinical use without review by a clinician.
- Judged on rows held out from its own data, if at all: it may do worse on other notes. ROUGE does not see invented facts; look at
  the flags (`chartmill evaluate`) and at summaries (`chartmill inspect`) before you rely on it.
- **Weights can hold what they were trained on.** If the data are patients', treat the model's files as you treat the data: nobody has
  tested what can be read out of them."""


def _use(task: TaskSection) -> str:
    if task.objective == "record":
        settings = "--set tasks.record.reader=both --set tasks.record.model=training/model"
        return f"## Use\n\n    chartmill run --input notes/ --output out/ {settings}"
    prefix = f' --set "tasks.summary.prefix={task.prefix}"' if task.prefix else ""
    return f"## Use\n\n    chartmill run --input notes/ --output out/ --model training/model{prefix}"


def _data(job: TrainJob, result: Mapping[str, Any]) -> str:
    rows = []
    for name, task in job.tasks.items():
        facts, files = result["tasks"][name], result["identity"]["data"][name]["files"]
        taught = ", references by a teacher" if task.teacher else ""
        rows.append(
            f"| {name} | {task.objective}{taught} | {facts['examples']:,} | {facts['judged']:,} | {facts['cut']:,} "
            f"| {task.weight:g} | {len(files)} |"
        )
    head = ["| task | objective | examples | held out to judge by | too long, cut | weight | files |", f"| --- | --- |{' ---: |' * 5}"]
    closing = "\nFingerprints of the files are in `data.json`. Their licence, origin and population: please add."
    return "\n".join(["## Data\n", *head, *rows, closing])


def _training(job: TrainJob, result: Mapping[str, Any]) -> str:
    stand, fit = result["stand"], job.fit
    ended = f"stopped early after {stand['step']:,} of {result['steps']:,} steps" if stand["stopped_early"] else f"{stand['step']:,} steps"
    average = f", moving average {fit.average:g}" if fit.average is not None else ""
    return (
        f"## Training\n\n{ended} in {stand['seconds'] / 60:.1f} minutes, {stand['tokens']:,.0f} tokens, "
        f"{result['processes']} process(es) on {result['device']}, {result['dtype']}. AdamW, learning rate {fit.learning_rate:g} with "
        f"warm-up ({fit.warmup_share:g} of the steps) and cosine, weight decay {fit.weight_decay:g}, gradients clipped to "
        f"{fit.max_gradient:g}, label smoothing {fit.label_smoothing:g} (prose only){average}, seed {job.seed}. "
        "All settings: `config.yaml`; how it went: `log.jsonl`, `curves.svg`."
    )


def _scores(result: Mapping[str, Any]) -> str:
    dev = result["dev"]
    if not dev:
        return "## Scores\n\nNone: no rows were held out."
    step = result["stand"]["best_step"]
    chosen = f"after step {step:,}" if step else "of the start, which no step made better"
    table = "\n".join(f"| {_NAMES[name]} | {value:.{3 if name == 'loss' else 1}f} |" for name, value in sorted(dev.items()))
    return (
        f"## Scores\n\nThe weights are those {chosen}, the best on the held-out rows; since they were "
        f"chosen by these rows, the figures are a little too good. ROUGE of greedy summaries, F1 in percent.\n\n"
        f"| | |\n| --- | ---: |\n{table}"
    )
