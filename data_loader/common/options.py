"""Arguments of the loaders, in groups: each one is defined here once, with its type, default, range and meaning.

A loader takes groups as objects; in the JSON their fields lie flat in `args`. A class with fewer fields is the base of
one with more, because a loader refuses the arguments that make no sense for its data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_type_hints

from annotated_types import Ge, Le
from pydantic import Field
from pydantic.fields import FieldInfo

from utils.errors import ConfigError
from utils.images.palette import wrong_colors
from utils.registry import OptionGroup

ColorChannel = Literal["RGB", "BGR", "GRAY"]
Interpolation = Literal["linear", "nearest"]
Layout = Literal["hwc", "chw"]
Role = Literal["train", "valid", "test"]
DecodedMegabytes = Annotated[
    int | None,
    Field(
        ge=1, description="Memory that a decoded file may take, in MB; `null`: an image 512, one of many samples 1024."
    ),
]


@dataclass(frozen=True)
class Options(OptionGroup):
    """A group of arguments.

    Raises:
        ConfigError: A field is out of its range.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for field in fields(self):
            value = getattr(self, field.name)
            infos = [item for item in get_args(hints[field.name])[1:] if isinstance(item, FieldInfo)]
            bounds = [bound for info in infos for bound in info.metadata]
            low = next((bound.ge for bound in bounds if isinstance(bound, Ge)), None)
            high = next((bound.le for bound in bounds if isinstance(bound, Le)), None)
            if value is None or ((low is None or value >= low) and (high is None or value <= high)):
                continue
            if isinstance(field.default, float) and low == 0:  # an effect of strength 0 does nothing
                rule = "0 (off) or more" if high is None else f"from 0 (off) to {high}"
            else:
                rule = f"{low} or more" if high is None else f"{low} to {high}"
            optional = ", or null for all" if field.name == "samples" else ""
            raise ConfigError(f"Wrong {field.name} {value}: it must be {rule}{optional}.")


@dataclass(frozen=True)
class InputOptions(Options):
    """Size of a network's input, and limit on the files it is made of."""

    resize: Annotated[
        int | Sequence[int] | None,
        Field(
            description="`[height, width]` of the input, aspect ratio preserved; a number: a square; `null`: no change."
        ),
    ] = None
    max_decoded_mb: DecodedMegabytes = None


@dataclass(frozen=True)
class ImageOptions(InputOptions):
    """Conversion of an image of 8 or 16 bits to a network's input."""

    in_channels: Annotated[int | None, Field(description="1, 3 or 4; `null`: as `color_channel` implies.")] = None
    color_channel: Annotated[
        ColorChannel | None, Field(description='`"RGB"`, `"BGR"`, `"GRAY"`; `null`: by `in_channels`, else RGB.')
    ] = None
    padding_value: Annotated[int, Field(ge=0, le=255, description="Grey of the padding around the image.")] = 0
    normalize: Annotated[bool, Field(description="ImageNet's mean and deviation; else values are 0 to 1.")] = True
    reduced_decoding: Annotated[
        bool, Field(description="Decode JPEG files at 1/2, 1/4 or 1/8 of their size if no more is needed.")
    ] = False


def require_whole_decoding(images: ImageOptions, data: str) -> None:
    """Refuse reduced decoding of data that has no file per image.

    Args:
        images: The options.
        data: The data, as the beginning of a clause.

    Raises:
        ConfigError: `reduced_decoding` is set.
    """
    if images.reduced_decoding:
        raise ConfigError(
            f"reduced_decoding is true, but {data} cannot be decoded at a part of its size: that needs a JPEG file per "
            "image. Leave reduced_decoding out."
        )


@dataclass(frozen=True)
class ArrayOptions(InputOptions):
    """Conversion of an array with any number of channels to a network's input."""

    in_channels: Annotated[int | None, Field(ge=1, description="Channels; `null`: those of the first array.")] = None
    padding_value: Annotated[float, Field(description="Value around the array, before the normalisation.")] = 0.0
    mean: Annotated[
        float | Sequence[float] | None, Field(description="Subtracted: a number, or one per channel; `null`: 0.")
    ] = None
    std: Annotated[
        float | Sequence[float] | None, Field(description="Divisor: a number, or one per channel; `null`: 1.")
    ] = None
    interpolation: Annotated[Interpolation, Field(description='`"nearest"` if values must not mix.')] = "linear"
    layout: Annotated[Layout, Field(description='`"chw"` if channels come first in the files.')] = "hwc"
    picture_key: Annotated[str | None, Field(description="Name of the image in `.npz` files of several arrays.")] = None


@dataclass(frozen=True)
class WarpOptions(Options):
    """Random changes of geometry in training that suit every kind of image; the default is none."""

    crop_range: Annotated[
        Sequence[float] | None,
        Field(description="Side of a random window, `[smallest, largest]` fraction of the image's side; up to 2."),
    ] = None
    flip_hor: Annotated[float, Field(ge=0, le=1, description="Probability of a left-right flip.")] = 0.0
    angle: Annotated[float, Field(ge=0, le=180, description="Largest rotation in degrees, to either side.")] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        window = self.crop_range
        if window is not None and not (len(window) == 2 and 0.0 < window[0] <= window[1] <= 2.0):
            raise ConfigError(
                f"Wrong crop_range {list(window)}: it must be [smallest, largest] side of the window as a fraction of "
                "the image's side, above 0 and at most 2, as in [0.9, 1.0]."
            )


@dataclass(frozen=True)
class TurnOptions(WarpOptions):
    """Random changes of geometry for images without a fixed upright position."""

    rotate: Annotated[float, Field(ge=0, le=1, description="Probability of a quarter turn, to either side.")] = 0.0


@dataclass(frozen=True)
class ColorOptions(Options):
    """Random changes of colour in training, for images of 8 or 16 bits; the default is none."""

    noise_std: Annotated[float, Field(ge=0, le=255, description="Deviation of added noise, in levels of 0 to 255.")] = (
        0.0
    )
    brightness: Annotated[float, Field(ge=0, le=1, description="Largest change, as a fraction of white.")] = 0.0
    contrast: Annotated[float, Field(ge=0, le=1, description="Largest change of the distance from mid-grey.")] = 0.0
    saturation: Annotated[float, Field(ge=0, le=1, description="Largest change of the distance from grey.")] = 0.0
    transforms: Annotated[Sequence[Any], Field(description="Albumentations' transforms, applied first, in order.")] = ()


@dataclass(frozen=True)
class UprightAugmentationOptions(ColorOptions, WarpOptions):
    """Augmentation of images that have a fixed upright position, such as streets."""


@dataclass(frozen=True)
class AugmentationOptions(ColorOptions, TurnOptions):
    """Augmentation of images in training; the default is none."""


@dataclass(frozen=True)
class PairOptions(Options):
    """Files of images and masks: a list of them, or a folder."""

    pairs_file: Annotated[str | None, Field(description="List with one `image, mask` per line.")] = None
    folder: Annotated[str | None, Field(description="Instead: folder of `data/{split}` and `labels/{split}`.")] = None
    split: Annotated[str | None, Field(description="Part of the folder; `null`: by `is_training`, train or val.")] = (
        None
    )
    data_root: Annotated[str | None, Field(description="Folder that the paths are relative to.")] = None


@dataclass(frozen=True)
class ClassOptions(Options):
    """Names of the classes."""

    classes: Annotated[Sequence[str] | None, Field(description="Names of the classes, in the order of their ids.")] = (
        None
    )


@dataclass(frozen=True)
class LabelMapOptions(ClassOptions):
    """Classes that are made of the values in the masks."""

    label_map: Annotated[
        Mapping[str, int] | None, Field(description='Value → class, as `{"7": 0, "8": 1}`; others are ignored.')
    ] = None
    palette: Annotated[
        Sequence[str] | None,
        Field(description='Colour of each class in images, as `["#181820", "#00c88c"]`; `null`: colours far apart.'),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.palette is not None and (wrong := wrong_colors(self.palette)):
            raise ConfigError(
                f"Wrong palette entry {wrong[0]!r}: a colour is # and six hexadecimal digits. Write it as '#00c88c'."
            )


@dataclass(frozen=True)
class MaskLabelOptions(LabelMapOptions):
    """Classes and values of masks."""

    num_classes: Annotated[int | None, Field(description="Number of classes, with the background.")] = None
    ignore_index: Annotated[int | None, Field(description="Value in the masks that counts nowhere.")] = None


@dataclass(frozen=True)
class LabelOptions(MaskLabelOptions):
    """Classes and values of masks in image files, which may be black and white."""

    binary_masks: Annotated[bool, Field(description="Black and white: class 1 is white, or every label above 0.")] = (
        False
    )


@dataclass(frozen=True)
class LoaderOptions(Options):
    """Selection, order and loading of the samples."""

    samples: Annotated[int | None, Field(ge=1, description="Number of samples, from the first; `null`: all.")] = None
    is_training: Annotated[bool, Field(description="Augment and shuffle; else evaluate each sample once.")] = True
    batch_size: Annotated[int, Field(ge=1, description="Samples per batch, over all processes.")] = 16
    shuffle: Annotated[bool | None, Field(description="New order in each epoch; `null`: in training.")] = None
    drop_last: Annotated[bool, Field(description="Leave out an incomplete last batch.")] = False
    validation_split: Annotated[int | float, Field(description="Held out: a fraction below 1, or a number.")] = 0.0
    split_seed: Annotated[
        int | None, Field(description="Seed of what `validation_split` holds out; `null`: the seed of the run.")
    ] = None
    folds: Annotated[
        Mapping[str, Any] | None,
        Field(description='`{"fold": 0, "of": 5}`: training takes the other folds, validation and test that one.'),
    ] = None
    subset: Annotated[
        int | float | None,
        Field(description="Samples to train on, drawn by a seed: a fraction up to 1.0, or a number; `null`: all."),
    ] = None
    subset_seed: Annotated[int | None, Field(description="Seed of `subset`; `null`: the seed of the run.")] = None
    role: Annotated[
        Role | None, Field(description='With `folds`: `"train"`, `"valid"`, `"test"`; `null`: by the section.')
    ] = None
    n_workers: Annotated[
        Annotated[int, Field(ge=0)] | Literal["auto"],
        Field(description='Processes that load, at most one per processor; `"auto"`: as many as pay.'),
    ] = 0
    pin_memory: Annotated[
        bool | None, Field(description="Page-locked batches, if there is CUDA; `null`: for a network on a GPU.")
    ] = None
    seed: Annotated[int, Field(description="Seed of the run.")] = 0

    @property
    def default_split(self) -> str:
        """The part of the data to use if none is named."""
        return "train" if self.is_training else "val"

    def base_arguments(self) -> dict[str, Any]:
        """Return the arguments of `BaseDataLoader` among these options."""
        shuffle = self.is_training if self.shuffle is None else self.shuffle
        names = ("batch_size", "drop_last", "validation_split", "n_workers", "pin_memory", "seed", "is_training")
        arguments = {"shuffle": shuffle, **{name: value for name, value in vars(self).items() if name in names}}
        # A subset is drawn from the samples left by validation, by `data_loader.common.folds`.
        return arguments if self.subset is None else {**arguments, "validation_split": 0}


@dataclass(frozen=True)
class ImageLoaderOptions(LoaderOptions):
    """Loading of images, which are decoded once."""

    cache_mb: Annotated[
        int | None, Field(ge=0, description="Memory for decoded images in MB; `null`: a quarter of the free memory.")
    ] = None


@dataclass(frozen=True)
class MaskLoaderOptions(ImageLoaderOptions):
    """Loading of images and masks, of which labels may be left out."""

    sparse: Annotated[
        Mapping[str, Any] | None, Field(description='Labels to hide, as `{"pattern": "halves", "density": 0.5}`.')
    ] = None
