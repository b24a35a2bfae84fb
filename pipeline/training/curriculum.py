"""From a training file to what is learned and what is judged by: rows read, held out, taught, and turned into token ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from pipeline.training.folder import RunFolder
from pipeline.training.generation import generation_material
from pipeline.training.material import Material
from pipeline.training.ranks import Ranks
from pipeline.training.recording import record_material
from pipeline.training.rows import Columns, FileFacts, Row, hold_out, read_rows
from pipeline.training.selecting import selection_material
from pipeline.training.settings import UNPAIRED, TaskSection, TrainJob
from pipeline.training.start import Start
from pipeline.training.teacher import taught
from pipeline.training.unpaired import denoise_material, gap_material
from schemas.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class TaskRows:
    """Rows to learn from and rows to judge by, with facts of their files."""

    train: list[Row] = field(repr=False)
    dev: list[Row] = field(repr=False)
    files: tuple[FileFacts, ...]
    dev_files: tuple[FileFacts, ...]

    def facts(self) -> dict[str, Any]:
        """For data.json: files by number only, since names may hold those of patients."""
        numbered = {
            kind: [{"file": number, **asdict(file)} for number, file in enumerate(files, start=1)]
            for kind, files in (("files", self.files), ("dev_files", self.dev_files))
        }
        return {**numbered, "train_rows": len(self.train), "dev_rows": len(self.dev)}


def read_tasks(job: TrainJob) -> dict[str, TaskRows]:
    """The rows of every task. Raises ConfigurationError."""
    return {name: _task_rows(name, task, job) for name, task in job.tasks.items()}


def _task_rows(name: str, task: TaskSection, job: TrainJob) -> TaskRows:
    alone = task.objective in UNPAIRED or task.teacher is not None
    columns = Columns(task.text_column, None if alone else task.reference_column, job.dev.group_column)
    rows, files = read_rows(task.data, columns, f"tasks.{name}.data")
    if task.dev_data:
        paired = columns if task.objective in UNPAIRED else replace(columns, reference=task.reference_column)
        dev, dev_files = read_rows(task.dev_data, replace(paired, group=None), f"tasks.{name}.dev_data")
        return TaskRows(rows, dev[: job.dev.max_examples], tuple(files), tuple(dev_files))
    train, dev = hold_out(rows, job.dev.share, job.seed)
    return TaskRows(train, dev[: job.dev.max_examples], tuple(files), ())


def teach(job: TrainJob, rows: Mapping[str, TaskRows], folder: RunFolder, ranks: Ranks, threads: int | None) -> dict[str, TaskRows]:
    """The rows of tasks that have a teacher with its references; dev rows that came with references keep them."""
    teachers = {name: task.teacher for name, task in job.tasks.items() if task.teacher is not None}
    done = dict(rows)
    # The first process asks and writes down, the others then find all of it written.
    if not ranks.first:
        ranks.wait()
    for name, teacher in teachers.items():
        both = [*rows[name].train, *(row for row in rows[name].dev if not row.reference)]
        answered = {row.text: row for row in taught(name, both, teacher, folder, ranks.device.type, threads)}
        train = [answered[row.text] for row in rows[name].train if row.text in answered]
        dev = [row if row.reference else answered[row.text] for row in rows[name].dev if row.reference or row.text in answered]
        done[name] = replace(rows[name], train=train, dev=dev)
    if ranks.first:
        ranks.wait()
    return done


def reference_words(job: TrainJob, rows: Mapping[str, TaskRows]) -> int:
    """The median of the words of the references that sentences are selected by; 1 without any."""
    counts = [len(row.reference.split()) for name, task in job.tasks.items() if task.objective == "selection" for row in rows[name].train]
    return int(median(counts)) if counts else 1


def texts_of(job: TrainJob, rows: Mapping[str, TaskRows]) -> Iterator[str]:
    """All that is learned from. Records are no text, and what they hold stands in the notes."""
    for name, task in rows.items():
        written = job.tasks[name].objective != "record"
        for row in task.train:
            yield row.text
            if row.reference and written:
                yield row.reference


def materials_of(job: TrainJob, rows: Mapping[str, Sequence[Row]], start: Start, *, needed: bool = True) -> list[Material]:
    """One per task, in order. Raises ConfigurationError for a task that has nothing to learn."""
    made = []
    for name, task in job.tasks.items():
        material = _material(name, rows[name], task, start, job.fit.label_smoothing)
        if needed and not len(material):
            raise ConfigurationError(f"tasks.{name}.data: nothing can be learned from its {len(rows[name])} rows for {task.objective}")
        made.append(material)
    return made


def _material(name: str, rows: Sequence[Row], task: TaskSection, start: Start, smoothing: float) -> Material:
    match task.objective:
        case "generation":
            return generation_material(name, rows, task, start.codec, start.markers.get(name), smoothing)
        case "selection":
            assert start.fmt is not None
            return selection_material(name, rows, task, start.codec, start.fmt, ends=not start.points)
        case "record":
            return record_material(name, rows, task, start.codec)
        case "denoise":
            assert start.mask is not None
            return denoise_material(name, rows, task, start.codec, start.mask)
        case "gap_sentences":
            assert start.mask is not None
            return gap_material(name, rows, task, start.codec, start.mask)
