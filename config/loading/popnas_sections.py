"""The sections of a run of POPNASv3 (arXiv:2212.06735): its keys with types, defaults and ranges."""

from typing import Annotated, Literal

from pydantic import Field

from config.checking.sections import LookaheadOptions, Strict

Problem = Literal["image_classification", "time_series_classification", "image_segmentation"]
ScoreMetric = Literal["accuracy", "f1_score", "mean_iou"]
FurtherObjective = Literal["time", "params", "inference_time"]
Device = Literal["CPU", "GPU", "multi-GPU", "TPU"]


class SearchSpace(Strict):
    """The cells that a run may find."""

    blocks: int = Field(5, ge=1, le=12, description="Blocks of the largest cells.")
    lookback_depth: int = Field(2, ge=1, le=8, description="Earlier cells whose output a block may take.")
    operators: list[str] | None = Field(None, min_length=1, description="Operations of a block.")


class SearchStrategy(Strict):
    """The number of cells to train, and the objectives by which they are compared."""

    max_children: int = Field(128, ge=1, description="Cells of each generation.")
    max_exploration_children: int = Field(16, ge=0, description="Further ones with rare operations and inputs.")
    score_metric: ScoreMetric = Field("accuracy", description="Score of a cell.")
    additional_pareto_objectives: list[FurtherObjective] = Field([], description="Costs to minimize, too.")


class OptimizerTexts(Strict):
    """The optimizer and its schedule."""

    type: str = Field("adamW", description='As "SGDW: 0.9 momentum".')
    scheduler: str | None = Field(None, description='As "cdr: 3 period, 2.0 t_mul, 1.0 m_mul, 0 alpha".')
    warmup: int = Field(0, ge=0, description="Epochs in which the learning rate rises.")
    lookahead: LookaheadOptions | None = Field(None, description="sync_period and slow_step_size.")


class TrainingHyperparameters(Strict):
    """The training of a cell."""

    epochs: int = Field(..., ge=1, description="Epochs of a cell.")
    learning_rate: float = Field(..., gt=0, description="The learning rate at the beginning.")
    weight_decay: Annotated[float, Field(ge=0)] | None = Field(
        0.0, description="Decay per step, or factor of the squared L2 norm; null: none."
    )
    drop_path: float = Field(0.0, ge=0, lt=1, description="Probability of dropping a path.")
    softmax_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the classifier.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Probability spread over all classes.")
    optimizer: OptimizerTexts = Field(OptimizerTexts(), description="type, scheduler, warmup, lookahead.")


class ArchitectureHyperparameters(Strict):
    """The network around the cells."""

    filters: int = Field(24, ge=1, description="Width of the first motif.")
    motifs: int = Field(3, ge=1, description="Motifs.")
    normal_cells_per_motif: int = Field(2, ge=0, description="Normal cells of each motif.")
    block_join_operator: Literal["add", "avg"] = Field("add", description="Sum or mean of the sides of a block.")
    lookback_reshape: bool = Field(False, description="Bring inputs to one shape first.")
    concat_only_unused_blocks: bool = Field(True, description="Concatenate the blocks that no other one reads.")
    residual_cells: bool = Field(True, description="Add the nearest input to the output.")
    se_cell_output: bool = Field(False, description="Squeeze and excitation of the output.")
    multi_output: bool = Field(False, description="An exit after each cell.")
    activation_function: str = Field("swish", description="Activation.")


class Resize(Strict):
    """Size of the images."""

    width: int = Field(..., ge=1, description="Pixels.")
    height: int = Field(..., ge=1, description="Pixels.")


class DataAugmentation(Strict):
    """Random changes in training."""

    enabled: bool = Field(False, description="Crops and flips.")
    use_cutout: bool = Field(False, description="Blank squares.")


class Dataset(Strict):
    """The data."""

    type: Problem = Field(..., description="image_classification, time_series_classification or image_segmentation.")
    name: str | None = Field(None, description="A known data set, or a name for the one at path.")
    path: str | None = Field(None, description="Folder of the data.")
    classes_count: int | None = Field(None, ge=2, description="Classes.")
    ignore_class: int | None = Field(None, description="Value in the masks that counts nowhere.")
    batch_size: int = Field(128, ge=1, description="Samples of a step.")
    val_test_batch_size: int | None = Field(None, ge=1, description="Samples of a batch of the test.")
    inference_batch_size: int | None = Field(None, ge=1, description="Samples for the inference time.")
    validation_size: Annotated[float, Field(ge=0, lt=1)] | None = Field(None, description="Fraction held out.")
    cache: bool = Field(True, description="Keep the data in memory.")
    folds: int = Field(1, ge=1, description="Trainings of each cell.")
    samples: int | None = Field(None, ge=1, description="Samples to use; null: all.")
    balance_class_losses: bool = Field(False, description="Weight classes by 1 / (C f).")
    class_labels_remapping: dict[str, int] | None = Field(None, description="Label to class.")
    resize: Resize | None = Field(None, description="width and height.")
    rescale: bool = Field(False, description="Divide by the 98th percentile, or by 255.")
    normalize: bool = Field(False, description="Subtract the mean, divide by the deviation.")
    data_augmentation: DataAugmentation = Field(DataAugmentation(), description="enabled, use_cutout.")


class Others(Strict):
    """The predictors and the machine."""

    accuracy_predictor_ensemble_units: int = Field(5, ge=1, description="Graph networks that predict together.")
    predictions_batch_size: int | None = Field(None, ge=1, description="Cells that are predicted at once.")
    save_children_weights: bool = Field(False, description="Store the weights of each cell.")
    save_children_models: bool = Field(False, description="Store the networks of each cell.")
    pnas_mode: bool = Field(False, description="Choose by the score alone.")
    train_strategy: Device | None = Field(None, description="The device.")
    enable_XLA_compilation: bool = Field(False, description="Compile networks.")  # noqa: N815 - in old files
    use_mixed_precision: bool = Field(False, description="Compute with 16 bits.")


class PopnasRun(Strict):
    """All sections of a run."""

    search_space: SearchSpace = Field(SearchSpace(), description="The cells.")
    search_strategy: SearchStrategy = Field(SearchStrategy(), description="The comparison.")
    training_hyperparameters: TrainingHyperparameters = Field(..., description="The training: epochs, learning_rate.")
    architecture_hyperparameters: ArchitectureHyperparameters = Field(
        ArchitectureHyperparameters(), description="The network."
    )
    dataset: Dataset = Field(..., description="The data: type, path, batch_size.")
    others: Others = Field(Others(), description="Predictors and machine.")
