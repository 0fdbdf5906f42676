"""Losses of a binary network with one channel, under the names that a config uses: others' classes with an option set.

For all of them the logits are (B, 1, H, W) float and the target is (B, H, W) int64, class 1 the positive one.
"""

from models.losses.lovasz import LovaszLoss
from models.losses.pixelwise import Exponent, FocalLoss, Fraction
from models.losses.regions import Absent, DiceLoss, JaccardLoss, NotNegative, Positive, TverskyLoss


def focal_loss_with_sigmoid(
    ignore_index: int | None = None, *, gamma: Exponent = 2.0, alpha: Fraction | None = 0.25
) -> FocalLoss:
    """The focal loss of a binary network with one channel, as in its paper (arXiv:1708.02002), mean over pixels.

    Args:
        ignore_index: Label of pixels that do not count.
        gamma: 0 is cross-entropy; the larger, the less do easy pixels cost.
        alpha: Factor of class 1; that of class 0 is 1 - alpha. null: both are 1.
    """
    return FocalLoss(ignore_index, gamma=gamma, alpha=alpha, sigmoid=True)


def dice_loss_with_sigmoid(
    ignore_index: int | None = None, *, smooth: Positive = 1.0, absent: Absent = "skip"
) -> DiceLoss:
    """One minus the soft Dice coefficient of class 1, for a binary network with one channel.

    Args:
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator, so that both may be 0.
        absent: "skip" leaves samples whose truth lacks class 1 out of the mean; "count" takes them in.
    """
    return DiceLoss(ignore_index, smooth=smooth, exclude_background=True, absent=absent, sigmoid=True)


def jaccard_loss_with_sigmoid(
    ignore_index: int | None = None, *, smooth: Positive = 1.0, absent: Absent = "skip"
) -> JaccardLoss:
    """One minus the soft intersection over union of class 1, for a binary network with one channel.

    Args:
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator, so that both may be 0.
        absent: "skip" leaves samples whose truth lacks class 1 out of the mean; "count" takes them in.
    """
    return JaccardLoss(ignore_index, smooth=smooth, exclude_background=True, absent=absent, sigmoid=True)


def tversky_loss_with_sigmoid(
    ignore_index: int | None = None,
    *,
    alpha: NotNegative = 0.3,
    beta: NotNegative = 0.7,
    smooth: Positive = 1.0,
    absent: Absent = "skip",
) -> TverskyLoss:
    """One minus the soft Tversky index of class 1, for a binary network with one channel.

    Args:
        ignore_index: Label of pixels that do not count.
        alpha: Cost of a false positive.
        beta: Cost of a false negative.
        smooth: Added to numerator and denominator, so that both may be 0.
        absent: "skip" leaves samples whose truth lacks class 1 out of the mean; "count" takes them in.
    """
    return TverskyLoss(
        ignore_index, alpha=alpha, beta=beta, smooth=smooth, exclude_background=True, absent=absent, sigmoid=True
    )


def lovasz_loss_with_sigmoid(ignore_index: int | None = None, *, per_image: bool = True) -> LovaszLoss:
    """The Lovász loss of class 1, for a binary network with one channel.

    Args:
        ignore_index: Label of pixels that do not count.
        per_image: Compute one coefficient per image, else one for the batch.
    """
    return LovaszLoss(ignore_index, per_image=per_image, exclude_background=True, sigmoid=True)
