"""The catalogue of networks, losses and metrics. Names only: listing it loads nothing."""

from utils.catalogue import Section

SECTIONS: dict[str, Section] = {
    "arch": Section(
        expects="torch.nn:Module",
        entries={
            "UNet": "models.unet:UNet",
            "UNetPlus": "models.unetplus:UNetPlus",
            "DeepLabV3Plus": "models.deeplabv3plus:DeepLabV3Plus",
            "PSPNet": "models.pspnet:PSPNet",
            "BiSeNet": "models.bisenet:BiSeNet",
            "ICNet": "models.icnet:ICNet",
            "EncDec": "models.encdec:EncDec",
        },
        roots=("torchvision", "timm", "segmentation_models_pytorch"),
        renamed={"segmentation_models_pytorch": {"classes": "num_classes"}},
        adapters={
            "segmentation_models_pytorch": "models.adapters:adapt_padded",
            "torchvision.models.segmentation": "models.adapters:adapt_torchvision",
        },
    ),
    "loss": Section(
        expects="torch.nn:Module",
        entries={
            "ce_loss": "models.losses:CrossEntropyLoss",
            "ohem_loss": "models.losses:OhemCrossEntropyLoss",
            "focal_loss": "models.losses:FocalLoss",
            "dice_loss": "models.losses:DiceLoss",
            "jaccard_loss": "models.losses:JaccardLoss",
            "tversky_loss": "models.losses:TverskyLoss",
            "lovasz_loss": "models.losses:LovaszLoss",
            "boundary_loss": "models.losses:BoundaryLoss",
            "bce_loss": "models.losses:BinaryCrossEntropyLoss",
            "focal_loss_with_sigmoid": "models.losses:SigmoidFocalLoss",
            "dice_loss_with_sigmoid": "models.losses:SigmoidDiceLoss",
            "jaccard_loss_with_sigmoid": "models.losses:SigmoidJaccardLoss",
            "tversky_loss_with_sigmoid": "models.losses:SigmoidTverskyLoss",
            "lovasz_loss_with_sigmoid": "models.losses:SigmoidLovaszLoss",
            "WeightedLoss": "models.losses:WeightedLoss",
            "AuxiliaryLoss": "models.auxiliary:AuxiliaryLoss",
        },
        roots=("torch.nn",),
        nested={"losses": "loss", "loss": "loss"},
    ),
    "metrics": Section(
        expects="base.base_metric:Metric",
        entries={
            "miou": "models.metrics:MeanIoU",
            "class_iou": "models.metrics:ClassIoU",
            "dice": "models.metrics:Dice",
            "accuracy": "models.metrics:Accuracy",
            "mean_accuracy": "models.metrics:MeanAccuracy",
            "precision": "models.metrics:Precision",
            "recall": "models.metrics:Recall",
            "f1": "models.metrics:F1",
            "macro_f1": "models.metrics:MacroF1",
            "balanced_accuracy": "models.metrics:BalancedAccuracy",
            "fw_iou": "models.metrics:FrequencyWeightedIoU",
            "top_k_accuracy": "models.top_k:TopKAccuracy",
            "boundary_iou": "models.boundary_iou:BoundaryIoU",
        },
    ),
}
