"""What trainings are made of, by their task. A new task is one module here and one line below."""

from __future__ import annotations

from detection.registry import Registry
from detection.tasks import Task
from detection.training.job import TrainingJob
from detection.training.tasks.classify import ClassifyTraining
from detection.training.tasks.detect import DetectTraining
from detection.training.tasks.task import Measured, TaskTraining

__all__ = ["TASKS", "Measured", "TaskTraining", "training_of"]

TASKS: Registry[TaskTraining] = Registry("task")
TASKS.add(Task.DETECT, DetectTraining())
TASKS.add(Task.CLASSIFY, ClassifyTraining())


def training_of(job: TrainingJob) -> TaskTraining:
    """Return what a job's training is made of."""
    return TASKS[job.config.task]
