"""The configuration of a training: the body of `POST /train`, stored with the job. Plain Python.

What every family of detectors has; the rest is in `detection/families/`. A field that is None takes the value
of the architecture's recipe; `resolve` fills them all in, so that the job shows what really ran.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen

from detection.tasks import Task
from detection.training.descriptions import describe_inherited

Fraction = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0), Le(1e6)]
Range = tuple[float, float]

STRICT = {
    "extra": "forbid",
    "use_attribute_docstrings": True,
    "allow_inf_nan": False,
    "json_schema_extra": describe_inherited,
}
"""Pydantic's reading of these dataclasses: unknown fields are refused, docstrings become descriptions."""

SHORT_RUN_EPOCHS = 50


class _Exactly:
    """Tells pydantic to take a value of the very type; by this method's name, so that it is not imported."""

    def __get_pydantic_core_schema__(self, source: Any, read: Callable[[Any], dict[str, Any]]) -> Any:
        return {**read(source), "strict": True}


Truth = Annotated[bool, _Exactly()]
"""`true` or `false`, and no word or number that could mean one of them."""


RANDOM = "random"
"""The `init` of weights that start from nothing."""


class WeightInitKind(StrEnum):
    DEFAULT = "default"
    NORMAL = "normal"
    XAVIER = "xavier"
    KAIMING = "kaiming"
    ORTHOGONAL = "orthogonal"


class OptimizerKind(StrEnum):
    SGD = "sgd"
    ADAM = "adam"
    ADAMW = "adamw"


class ScheduleKind(StrEnum):
    YOLOXWARMCOS = "yoloxwarmcos"
    EPOCH_COS = "epoch_cos"
    EPOCH_STEP = "epoch_step"
    WARMCOS = "warmcos"
    COS = "cos"
    MULTISTEP = "multistep"
    NANODET = "nanodet"


class Precision(StrEnum):
    AUTO = "auto"
    FP32 = "fp32"
    AMP = "amp"


@dataclass(frozen=True, kw_only=True)
class WeightInitConfig:
    """How convolutions start; only with `init: "random"`."""

    __pydantic_config__: ClassVar = STRICT
    kind: WeightInitKind = WeightInitKind.DEFAULT
    """`default` is the framework's; the other four draw every convolution's weight anew."""
    gain: Positive | None = None
    """Standard deviation of `normal`, gain of `xavier` and `orthogonal`; null is 0.02. Others have none."""


WEIGHT_INIT_GAIN = 0.02
KINDS_WITH_GAIN = (WeightInitKind.NORMAL, WeightInitKind.XAVIER, WeightInitKind.ORTHOGONAL)


@dataclass(frozen=True, kw_only=True)
class FreezeConfig:
    """Parts that do not learn: no gradient, not in the optimizer, batch-norm statistics kept."""

    __pydantic_config__: ClassVar = STRICT
    parts: Annotated[tuple[Literal["backbone", "neck"], ...], MaxLen(16)] = ()
    """Which parts stay as they begin: `backbone`, `neck` or both; empty is none."""
    epochs: Annotated[int, Ge(1)] | None = None
    """How many epochs they stay frozen; null is the whole run."""
    batch_size: Annotated[int, Ge(1), Le(4096)] | None = None
    """Batch size while frozen; null is the training's."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer; null takes the recipe's value."""

    __pydantic_config__: ClassVar = STRICT
    kind: OptimizerKind = OptimizerKind.SGD
    """`sgd`, `adam`, or `adamw`, which keeps the weight decay out of the gradients."""
    lr: Positive | None = None
    """Peak learning rate for the whole batch; not together with `lr_per_image`."""
    lr_per_image: Positive | None = None
    """Peak learning rate per picture of the batch; not together with `lr`."""
    momentum: Annotated[float, Ge(0), Lt(1)] | None = None
    """Momentum of SGD, or Adam's first beta."""
    nesterov: Truth = True
    """Look ahead by the momentum; only with `sgd`."""
    weight_decay: Annotated[float, Ge(0), Le(1)] | None = None
    """On weights of layers that are no normalisation, and on what the next two fields add; null is 0.0005,
    and 0.05 where the family's recipe is `adamw`."""
    decay_norms: Truth = False
    """Weights of normalisations decay too."""
    decay_biases: Truth = False
    """Biases decay too."""
    clip_norm: Positive | None = None
    """Gradients are scaled down to this norm; null is never."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the run; null takes the recipe's value."""

    __pydantic_config__: ClassVar = STRICT
    kind: ScheduleKind = ScheduleKind.YOLOXWARMCOS
    """The shape of the curve; `yoloxwarmcos` is a warmup, half a cosine and a flat tail."""
    warmup_epochs: Annotated[float, Ge(0), Le(1000)] | None = None
    """Not together with `warmup_steps`."""
    warmup_steps: Annotated[int, Ge(0)] | None = None
    """Not together with `warmup_epochs`."""
    warmup_start: Annotated[float, Ge(0), Le(1e6)] | None = None
    """Learning rate of the first step: null is 0, for `epoch_cos` a tenth of the peak, and for `nanodet`
    a ten-thousandth of it."""
    no_aug_epochs: Annotated[int, Ge(0)] | None = None
    """Last epochs, in which pictures are only coloured and mirrored. YOLOX: the L1 term is added in them."""
    min_lr_ratio: Fraction | None = None
    """Lowest learning rate as a fraction of the peak. `epoch_cos` and `epoch_step` keep the rate between
    a hundredth of the optimizer's lowest and highest peak; the job shows the fraction that comes of it."""
    milestones: Annotated[tuple[Annotated[int, Ge(1)], ...], MaxLen(1000)] = ()
    """Epochs after which `multistep` lowers the rate, each less than `epochs`; no other kind has any."""
    gamma: Annotated[float, Gt(0), Le(1)] = 0.1
    """Factor of each milestone."""
    step_num: Annotated[int, Ge(2), Le(1000)] = 10
    """Number of plateaus of `epoch_step`."""


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """The running average of the weights, which is what gets evaluated and published."""

    __pydantic_config__: ClassVar = STRICT
    enabled: Truth = True
    """Without it the trained weights themselves are evaluated and published."""
    decay: Annotated[float, Ge(0), Lt(1)] | None = None
    """How much of the average each update keeps, once the ramp is over; null is the recipe's."""
    ramp_updates: Positive | None = None
    """Time constant of the decay's ramp, in updates (tau)."""
    integer_buffers: Literal["copy", "keep"] = "copy"
    """Counters such as those of batch norm: `copy` takes the newest, `keep` the first."""


@dataclass(frozen=True, kw_only=True)
class AssignerConfig:
    """Which prior must predict which box; what can be chosen is up to the family."""

    __pydantic_config__: ClassVar = STRICT


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The terms of the loss; what can be chosen is up to the family."""

    __pydantic_config__: ClassVar = STRICT


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """What may happen to a training picture in every family; null is the recipe."""

    __pydantic_config__: ClassVar = STRICT
    flip: Fraction = 0.5
    """Probability of the left-right mirror."""
    multi_scale: Truth | None = None
    """Draw a new input size every `multi_scale_every` steps."""
    multi_scale_range: tuple[int, int] | None = None
    """Smallest and largest side, pixels; multiples of 32."""
    multi_scale_every: Annotated[int, Ge(1), Le(10_000)] = 10
    """Steps between two input sizes; only with `multi_scale`."""


@dataclass(frozen=True, kw_only=True)
class MeasuringConfig:
    """When the validation split is measured while training."""

    __pydantic_config__: ClassVar = STRICT
    every_epochs: Annotated[int, Ge(1)] | None = None
    """Always after the last epoch, and after every epoch of the tail."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(MeasuringConfig):
    """How the validation split of a detector is measured while training."""

    __pydantic_config__: ClassVar = STRICT
    score_threshold: Annotated[float, Ge(0), Lt(1)] | None = None
    """Detections below it are left out; null is the architecture's, as for all of these."""
    nms_iou: Annotated[float, Gt(0), Le(1)] | None = None
    """Of two boxes of a class that overlap by more only the better one counts."""
    max_detections: Annotated[int, Ge(1), Le(10_000)] | None = None
    """Most detections in one picture; the best count."""
    tta: Truth = False
    """Measure the published weights with test-time augmentation too; its AP stands beside the plain one,
    which stays the model's."""


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingConfig:
    """End a training that no longer gets better."""

    __pydantic_config__: ClassVar = STRICT
    patience: Annotated[int, Ge(1)] | None = None
    """Evaluations without a better AP (of a classifier: accuracy) before the training ends; null is never."""
    min_delta: Fraction = 0.0
    """It is better when it is higher by more than this."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything that decides what a training computes, besides the pictures; each family has its own."""

    __pydantic_config__: ClassVar = STRICT
    task: Task
    """`detect`: box objects; `classify`: say what one object is. It follows from the architecture."""
    architecture: str
    """The network, as `GET /architectures` lists them."""
    init: Annotated[str, MaxLen(64)] = RANDOM
    """`random`, a model id, or `pretrained`: the newest imported weights of this architecture that know
    COCO's classes, or for a classifier ImageNet's; those of a graph, whose batch norms are folded, only when
    there are no others. What fits by name and shape is taken; the log and the model's provenance list the
    rest."""
    init_exclude: Annotated[tuple[Annotated[str, MaxLen(200)], ...], MaxLen(1000)] = ()
    """Weights whose name contains one of these are not taken from `init`."""
    weight_init: WeightInitConfig = field(default_factory=WeightInitConfig)
    """How weights begin that are not taken from `init`."""
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
    """What does not learn, and for how long."""
    epochs: Annotated[int, Ge(1), Le(10_000)] = 300
    """How often every picture is seen."""
    batch_size: Annotated[int, Ge(1), Le(4096)] | Literal["auto"] = "auto"
    """Pictures per step over all processes, among which they are divided evenly."""
    input_size: Annotated[int, Ge(64), Le(2048)] | None = None
    """Side of the square network input, a multiple of 32; null is the architecture's."""
    device: Annotated[str, MaxLen(64)] = "auto"
    """`auto` is one device: the first accelerator, or else the CPU. `cpu`, or accelerators by their numbers:
    `0`, `0,1`. A job shows what it got."""
    precision: Precision = Precision.AUTO
    """`auto` is `amp` on an accelerator and `fp32` on the CPU; a job shows which, and keeps to it."""
    seed: Annotated[int, Ge(0), Le(2**31 - 1)] = 0
    """Of the first weights, the order of pictures and the augmentation."""
    deterministic: Truth = True
    """Slower on accelerators, the same numbers every time."""
    threads: Annotated[int, Ge(1), Le(256)] | None = None
    """Threads that a process computes with on the CPU; null is its share of the worker's cores. Sums come out
    in another order with another number, so a job shows it and keeps to it."""
    processes: Annotated[int, _Exactly(), Ge(1), Le(64)] | None = None
    """Processes that train together; null is one per device. Accelerators have one each, a CPU
    at most one per core and per GiB of memory."""
    sync_bn: Truth = False
    """Batch norm over the pictures of all processes; needs more than one."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How weights follow their gradients."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """How the learning rate changes over the run."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """The running average of the weights."""
    loss: LossConfig
    """What a wrong prediction costs."""
    augmentation: AugmentationConfig
    """What may happen to a picture before it is shown."""
    evaluation: MeasuringConfig
    """How the validation split is measured meanwhile."""
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    """When to end before the last epoch."""
    checkpoint_every: Annotated[int, Ge(1)] = 1
    """Epochs between checkpoints."""
    time_limit_s: Annotated[int, Ge(1)] | None = None
    """The training ends after this long, with its last checkpoint kept."""

    @property
    def is_short(self) -> bool:
        """True when a run is too short for the published recipes, which were made for 300 epochs."""
        return self.epochs <= SHORT_RUN_EPOCHS


@dataclass(frozen=True, kw_only=True)
class DetectorConfig(TrainingConfig):
    """The same of a detector."""

    __pydantic_config__: ClassVar = STRICT
    task: Task = Task.DETECT
    assigner: AssignerConfig
    """Which prior must predict which box."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


def num_devices(device: str) -> int:
    """Return how many devices `device` asks for, at least one."""
    return max(len([part for part in device.split(",") if part.strip()]), 1)


def num_processes(config: TrainingConfig) -> int:
    """Return how many processes train together: one per device, unless something else is said."""
    return config.processes or num_devices(config.device)
